"""Build the website from the notebooks into _docs/, and check that no link in it is dead.

    python tools/build_docs.py                   prepare, build with Sphinx, check the links
    python tools/build_docs.py --check _docs     only check the links of pages that are there

The first step needs no Sphinx: it writes build/docs/src, where every chapter is a copy of its notebook with the saved
outputs, without directives and with a mark and an anchor above each exported cell; where every module has a page made
from its source (docments and docstrings); and where parts of the README and of other files are pages.
"""
import argparse
import ast
import copy
import io
import json
import os
import posixpath
import pprint
import re
import shutil
import sys
import tokenize
from configparser import ConfigParser
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat

ROOT = Path(__file__).resolve().parent.parent
NOT_MODULES = {'__init__', '_modidx', 'all'}
ON_LANDING = ('Two commands', 'Exercises', 'In a notebook of your own')   # sections of the README; others make the guide
LEFT_OUT = ('The chapters', 'License')                       # the landing page has a table of its own
PAGES = {'CONTRIBUTING.md': 'contributing', 'CHANGELOG.md': 'changelog', 'docs/faults.md': 'faults',
         'bench/RESULTS.md': 'results'}   # if there


# ---- code as text: what a module defines

@dataclass
class Param:
    name: str
    type: str = ''
    default: str = None
    doc: str = ''


@dataclass
class Definition:
    name: str
    kind: str                       # function, class, data, method, property
    doc: str = ''
    params: list = field(default_factory=list)
    returns: Param = None
    note: str = ''                  # a comment on the line of the def that speaks of several parameters
    raises: list = field(default_factory=list)
    bases: list = field(default_factory=list)
    members: list = field(default_factory=list)
    source: str = ''                # of data: its first assignment
    value: object = None            # of data: what it is at the end, None if that needs an import
    called: bool = True             # False: a class whose arguments are not known
    decorators: list = field(default_factory=list)


def comments_of(source):
    "Line -> (comment, whether it stands alone on its line)."
    lines = source.splitlines()
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: (t.string.lstrip('#').strip(), not lines[t.start[0]-1][:t.start[1]].strip())
            for t in tokens if t.type == tokenize.COMMENT}


def comment_at(line, comments, last=None):
    "The comment at the end of a line, and its continuation on lines of their own."
    if line not in comments or comments[line][1]: return ''
    words, line = [comments[line][0]], line + 1
    while line in comments and comments[line][1] and (last is None or line <= last):
        words.append(comments[line][0])
        line += 1
    return ' '.join(words)


def read_params(node, comments, method=False):
    "Parameters with their docments, the returned value, and a note where one comment speaks of several parameters."
    a, text = node.args, lambda n: ast.unparse(n) if n else ''
    args = [(p, '') for p in a.posonlyargs + a.args]
    defaults = [None] * (len(args) - len(a.defaults)) + a.defaults
    args = [(p, star, d) for (p, star), d in zip(args, defaults)]
    if a.vararg: args.append((a.vararg, '*', None))
    elif a.kwonlyargs: args.append((None, '*', None))
    args += [(p, '', d) for p, d in zip(a.kwonlyargs, a.kw_defaults)]
    if a.kwarg: args.append((a.kwarg, '**', None))
    static = any(text(d) == 'staticmethod' for d in node.decorator_list)
    if method and not static: args = args[1:]

    params, shared, note = [], {}, ''
    one_line = node.body[0].lineno == node.lineno
    for p, star, default in args:
        if p is None: params.append(Param('*')); continue
        param = Param(star + p.arg, text(p.annotation), text(default) if default is not None else None)
        params.append(param)
        shared.setdefault(p.lineno, []).append(param)
    first = node.body[0].lineno
    for line, group in shared.items():
        words = comment_at(line, comments, first - 1)
        if not words: continue
        names = '|'.join(re.escape(p.name) for p in group)
        parts = re.split(rf'(?:^|;\s+)({names}):\s+', words)
        if len(parts) > 1 and not parts[0]:
            for name, doc in zip(parts[1::2], parts[2::2]): next(p for p in group if p.name == name).doc = doc
        elif len(group) == 1 and not one_line and not (line == node.lineno and node.returns): group[0].doc = words
        elif one_line or line == node.lineno: note = words
        else:
            for p in group: p.doc = words
    returns = Param('returns', text(node.returns)) if node.returns else None
    end = next((l for l in range(first - 1, node.lineno - 1, -1) if l in comments and not comments[l][1]), None)
    if end and end not in shared and end > max(shared, default=node.lineno):   # the line that closes the parenthesis
        returns = returns or Param('returns')
        returns.doc = comment_at(end, comments, first - 1)
    return params, returns, note


def message(node):
    "The text of an f-string or string, with an ellipsis for what is filled in."
    if isinstance(node, ast.Constant) and isinstance(node.value, str): return node.value
    if isinstance(node, ast.JoinedStr):
        return ''.join(v.value if isinstance(v, ast.Constant) else '…' for v in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return (message(node.left) or '…') + (message(node.right) or '…')
    return ''


def read_raises(node):
    "What the body raises itself: (exception, message), once each."
    found, todo = [], list(node.body)
    while todo:
        n = todo.pop(0)
        if isinstance(n, (ast.FunctionDef, ast.ClassDef, ast.Lambda)): continue
        if isinstance(n, ast.Raise) and isinstance(n.exc, ast.Call) and isinstance(n.exc.func, ast.Name):
            name, words = n.exc.func.id, message(n.exc.args[0]) if n.exc.args else ''
            if name.endswith('Error') and words and (name, words) not in found: found.append((name, words))
        todo = list(ast.iter_child_nodes(n)) + todo
    return found


def read_function(node, comments, kind='function'):
    params, returns, note = read_params(node, comments, kind != 'function')
    decorators = [ast.unparse(d) for d in node.decorator_list]
    is_property = any(d.split('.')[-1] in ('property', 'cached_property') for d in decorators)
    if kind == 'method' and is_property: kind = 'property'
    return Definition(node.name, kind, ast.get_docstring(node) or '', params, returns, note, read_raises(node),
                      decorators=decorators)


def read_class(node, comments):
    d = Definition(node.name, 'class', ast.get_docstring(node) or '', bases=[ast.unparse(b) for b in node.bases],
                   decorators=[ast.unparse(x) for x in node.decorator_list], called=False)
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
    is_data = any(x.split('(')[0].split('.')[-1] == 'dataclass' for x in d.decorators) or 'NamedTuple' in d.bases
    if is_data:
        d.called = True
        for n in fields:
            value = n.value
            if isinstance(value, ast.Call) and ast.unparse(value.func).endswith('field'):
                value = next((k.value for k in value.keywords if k.arg in ('default', 'default_factory')), None)
            d.params.append(Param(n.target.id, ast.unparse(n.annotation),
                                  ast.unparse(value) if value is not None else None, comment_at(n.lineno, comments)))
    for n in node.body:
        if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call) and ast.unparse(n.value.func) == 'property':
            doc = next((message(k.value) for k in n.value.keywords if k.arg == 'doc'), '')
            if not n.targets[0].id.startswith('_'): d.members.append(Definition(n.targets[0].id, 'property', doc))
        if not isinstance(n, ast.FunctionDef): continue
        if n.name == '__init__':
            init = read_function(n, comments, 'method')
            d.params, d.note, d.raises, d.called = init.params, init.note, init.raises, True
            d.doc = d.doc or init.doc
        elif not n.name.startswith('_'): d.members.append(read_function(n, comments, 'method'))
    return d


@dataclass
class Module:
    name: str
    doc: str
    names: list                     # what it exports, in order of definition
    definitions: dict
    patches: dict                   # function -> 'Learner.function'
    exported: list = None           # __all__, if there is one


def run_plain(statement, values):
    "Run an assignment with the names in `values` and built-ins, into `values`; what needs more loses its value."
    try: exec(compile(ast.Module([statement], []), '<constant>', 'exec'), values)
    except Exception:
        for t in ast.walk(statement):
            if isinstance(t, ast.Name) and isinstance(t.ctx, ast.Store): values.pop(t.id, None)


def read_module(source, name):
    "What a module exports, from its text; nothing is imported."
    tree, comments = ast.parse(source), comments_of(source)
    everything, exported, patches, values = {}, None, {}, {}
    for n in tree.body:
        if isinstance(n, (ast.Assign, ast.AnnAssign, ast.AugAssign)): run_plain(n, values)
        if isinstance(n, ast.FunctionDef): everything[n.name] = read_function(n, comments)
        elif isinstance(n, ast.ClassDef): everything[n.name] = read_class(n, comments)
        elif isinstance(n, (ast.Assign, ast.AnnAssign)):
            targets = n.targets if isinstance(n, ast.Assign) else [n.target]
            for t in targets:
                if isinstance(t, ast.Name) and t.id == '__all__': exported = ast.literal_eval(n.value)
                elif isinstance(t, ast.Name) and n.value is not None:
                    text = ast.get_source_segment(source, n.value)
                    everything[t.id] = Definition(t.id, 'data', note=comment_at(n.lineno, comments), source=text)
                elif isinstance(t, ast.Attribute) and isinstance(n.value, ast.Name):
                    patches[n.value.id] = ast.unparse(t)
    for k, d in everything.items():
        if d.kind == 'data': d.value = values.get(k)
    public = [k for k, d in everything.items() if not k.startswith('_') and d.kind != 'data']
    names = [k for k in everything if k in (public if exported is None else exported)]
    return Module(name, ast.get_docstring(tree) or '', names, everything, patches, exported)


def read_package(folder):
    "A folder of modules, as the names that its __init__.py takes from them."
    module = read_module((folder/'__init__.py').read_text(encoding='utf-8'), folder.name)
    for n in ast.parse((folder/'__init__.py').read_text(encoding='utf-8')).body:
        path = folder/f'{getattr(n, "module", None)}.py'
        if not isinstance(n, ast.ImportFrom) or n.level != 1 or not path.exists(): continue
        inner = read_module(path.read_text(encoding='utf-8'), n.module)
        found = inner.definitions
        module.definitions |= {a.asname or a.name: found[a.name] for a in n.names if a.name in found}
    exported = module.exported or [n for n in module.definitions if not n.startswith('_')]
    module.names = [n for n in exported if n in module.definitions]
    return module


def read_modules(folder):
    "Every module and package in a folder, by name."
    modules = {p.stem: read_module(p.read_text(encoding='utf-8'), p.stem)
               for p in sorted(folder.glob('*.py')) if p.stem not in NOT_MODULES}
    modules |= {p.parent.name: read_package(p.parent) for p in sorted(folder.glob('*/__init__.py'))}
    inherit_arguments(modules)
    return modules


def inherit_arguments(modules):
    "Classes without an __init__ of their own take the arguments of their base, if minidl defines it."
    classes = {k: d for m in modules.values() for k, d in m.definitions.items() if d.kind == 'class'}

    def settle(d, seen=()):
        if d.called or d.name in seen: return d
        for b in d.bases:
            base = classes.get(b.split('.')[-1])
            if base and settle(base, (*seen, d.name)).called: d.params, d.note, d.called = base.params, base.note, True
        return d
    for d in classes.values(): settle(d)


# ---- markdown

def escape(text):
    "Plain words as markdown: `code` stays, all else means itself."
    parts = re.split(r'(``.+?``|`[^`]+`)', text, flags=re.S)
    return ''.join(p if i % 2 else re.sub(r'([\\*_<>\[\]$#{}|~^])', r'\\\1', p) for i, p in enumerate(parts))


def escape_doc(doc):
    "A docstring as markdown; indented blocks are code, lists with - stay lists."
    out = []
    for block in re.split(r'\n\s*\n', doc.strip()):
        if all(l.startswith('    ') for l in block.splitlines()): out.append(f'```python\n{block}\n```')
        else: out.append(re.sub(r'^(\s*\d*)([+.])(?= )', r'\1\\\2', escape(block), flags=re.M))
    return '\n\n'.join(out)


def code(text):
    if not text: return ''
    text = text.replace('|', '\\|')
    return f'`` {text} ``' if '`' in text else f'`{text}`'


_FENCE = re.compile(r'\s*(```+|~~~+)')
_LINK = r'!?\[(?:[^\[\]]|\[[^\]]*\])*\]\([^()\s]+(?:\s+"[^"]*")?\)'


def outside_fences(text, change):
    "The text with `change` applied to each line that is not in a fenced block of code."
    out, fence = [], None
    for line in text.splitlines():
        if m := _FENCE.match(line):
            if fence is None: fence = m[1][:3]
            elif line.strip().startswith(fence): fence = None
            out.append(line)
        else: out.append(line if fence else change(line))
    return '\n'.join(out)


def keep_together(line):
    "Formulas and the punctuation they touch in a span that is not broken; else a line may begin with a full stop."
    formula = r"(`+[^`]*`+)|((?<![\\$\w])\(?\$[^$\s](?:[^$]*[^$\s])?\$(?![$\d])[.,;:!?)'-]*)"
    return re.sub(formula, lambda m: m[0] if m[1] or m[2][0] + m[2][-1] == '$$' else f'[{m[2]}]{{.together}}', line)


class Linker:
    """Links the first mention in a section of each exported name to its entry in the reference, of each chapter to it.

    `known`: name -> where it is defined (`minidl.learner.Learner`); a role that Sphinx resolves is put in its place.
    `chapters`: number -> link."""
    def __init__(self, known, chapters=()): self.known, self.chapters, self.seen = known, dict(chapters), set()

    def _one(self, m):
        if m[2]: return self._chapter(m[2], m[0])
        if m[3]: return m[3] + re.sub(r'\d\d[a-z]?', lambda n: self._chapter(n[0], n[0]), m[0].removeprefix(m[3]))
        name = (m[1] or '').removesuffix('()')
        target = self.known.get(name)
        if not target or name in self.seen: return m[0]
        self.seen.add(name)
        return f'{{py:obj}}`{m[1]} <{target}>`'

    def _chapter(self, number, words):
        if number not in self.chapters or number in self.seen: return words
        self.seen.add(number)
        return f'[{words}]({self.chapters[number]})'

    def _line(self, line):
        if line.startswith('#'): self.seen = set()
        if re.match(r'#|\s*<|\s*:::|\{', line): return line   # headings, HTML, directives, attributes
        code = r'(?<!`)`([A-Za-z_][\w.]*(?:\(\))?)`(?!`)'
        chapter = r'\b[Cc]hapter (\d\d[a-z]?)\b|\b([Cc]hapters )\d\d[a-z]?(?:(?:, | and | to |, and )\d\d[a-z]?\b)+'
        return re.sub(rf'{_LINK}|\{{[\w:]+\}}`[^`]*`|{code}|`+[^`]*`+|{chapter}', self._one, line)

    def __call__(self, text): return outside_fences(text, self._line)


@dataclass
class Site:
    "What there is in the repository and where it goes, so that links can be rewritten."
    root: Path
    out: Path
    blob: str                                          # address of a file of the repository, on the web
    pages: dict = field(default_factory=dict)          # file of the repository -> page, both without leading slash
    known: dict = field(default_factory=dict)          # name -> its full name in the reference
    anchors: dict = field(default_factory=dict)        # full name -> (chapter, anchor of the cell)
    methods: dict = field(default_factory=dict)        # class -> [(method, full name, chapter)] from other modules
    chapters: list = field(default_factory=list)

    def linker(self, page, but=()):
        "A linker for a page, which links neither to itself nor to the names in `but`."
        known = {k: v for k, v in self.known.items() if k not in but}
        here = posixpath.dirname(page) or '.'
        return Linker(known, {c.number: posixpath.relpath(c.file, here) for c in self.chapters if c.file != page})

    def rewrite(self, text, source, page):
        "Links of a markdown text of the file `source`, as they must be on `page`."
        def link(m):
            mark, label, target, title = m[1], m[2], m[3], m[4] or ''
            if target is None: return m[0]     # code
            parts = urlsplit(target)
            if parts.scheme or target.startswith('#') or not parts.path: return m[0]
            path = posixpath.normpath(posixpath.join(posixpath.dirname(source), unquote(parts.path)))
            fragment = f'#{parts.fragment}' if parts.fragment else ''
            here = posixpath.dirname(page)
            if path in self.pages: new = posixpath.relpath(self.pages[path], here or '.') + fragment
            elif mark and (self.root/path).is_file():
                (self.out/path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.root/path, self.out/path)
                new = posixpath.relpath(path, here or '.')
            elif (self.root/path).exists(): new = f'{self.blob}/{path}{fragment}'
            else: return m[0]     # the build warns of it
            return f'{mark}[{label}]({new}{title})'
        pattern = re.compile(r'`+[^`]*`+|(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)(\s+"[^"]*")?\)')
        return outside_fences(text, lambda line: pattern.sub(link, line))


# ---- chapters

@dataclass
class Chapter:
    path: Path
    title: str
    summary: str
    module: str

    @property
    def number(self): return self.path.stem.split('_')[0]

    @property
    def file(self): return f'chapters/{self.path.name}'


def read_chapter(path):
    nb = nbformat.read(path, as_version=4)
    first = next((c.source for c in nb.cells if c.cell_type == 'markdown'), '')
    title = re.search(r'^# +(.+)$', first, re.M)
    summary = re.search(r'^> *(.+(?:\n> *.+)*)', first, re.M)
    module = next((m[1] for c in nb.cells if (m := re.match(r'#\|\s*default_exp\s+(\S+)', c.source))), None)
    title, summary = title[1] if title else path.stem, re.sub(r'\s*\n> *', ' ', summary[1]) if summary else ''
    return Chapter(path, title, summary, module), nb


def split_directives(source):
    "A cell's `#|` lines as {name: arguments}, and the rest."
    directives, rest = {}, []
    for line in source.splitlines():
        m = re.match(r'\s*#\s?\|\s*([\w:]+)\s*(.*)', line) if not any(l.strip() for l in rest) else None
        if m: directives[m[1].rstrip(':')] = m[2].strip()
        else: rest.append(line)
    return directives, '\n'.join(rest).strip('\n')


def defined_in(source):
    "Names that a cell defines at its top level."
    try: tree = ast.parse(source)
    except SyntaxError: return []
    names = []
    for n in tree.body:
        if isinstance(n, (ast.FunctionDef, ast.ClassDef)): names.append(n.name)
        elif isinstance(n, (ast.Assign, ast.AnnAssign)):
            targets = n.targets if isinstance(n, ast.Assign) else [n.target]
            names += [t.id for t in targets if isinstance(t, ast.Name)]
    return names


def cell_anchors(chapter, nb, names):
    "Exported name -> anchor of the cell that defines it; anchors are lower case, so equal ones are numbered."
    found = {}
    for cell in nb.cells:
        if cell.cell_type != 'code': continue
        directives, source = split_directives(cell.source)
        if not directives.keys() & {'export', 'exporti', 'exports'}: continue
        for name in defined_in(source):
            if name not in names or name in found: continue
            anchor, n = f'def-{chapter.module}-{name}'.lower().replace('_', '-'), 1
            while anchor in found.values(): n, anchor = n + 1, f'{anchor.removesuffix(f"-{n}")}-{n + 1}'
            found[name] = anchor
    return found


def alternative(source, prose, heading):
    "A picture in words: what the code calls its axes, titles and lines, or else what the prose before it said last."
    parts = {'ylabel': 'Vertical axis', 'xlabel': 'Horizontal axis', 'title': 'Title', 'label': 'Legend'}
    found = {kind: {} for kind in parts}
    try: calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)]
    except SyntaxError: calls = []
    for call in sorted(calls, key=lambda n: (n.lineno, n.col_offset)):
        given = [(k.arg, k.value) for k in call.keywords]
        if isinstance(call.func, ast.Attribute) and call.args:      # plt.title, ax.set_title, fig.suptitle
            given.append((re.sub('^(set_|sup)', '', call.func.attr), call.args[0]))
        for kind, node in given:
            if kind in found and re.search(r'\w', words := message(node)): found[kind][words] = True
    alt = f'Picture drawn by the code above, in the section "{heading}"'
    if any(found.values()):
        alt = '. '.join([alt] + [f"{parts[kind]}: {'; '.join(names)}" for kind, names in found.items() if names])
    else:
        paragraphs = [p for p in re.split(r'\n\s*\n', prose.strip()) if not re.match(r'[#|<>]|```|\$\$', p)]
        words, sentences = '', re.split(r'(?<=[.?!])\s+', ''.join(paragraphs[-1:]))
        while sentences and len(words) < 40: words = f'{sentences.pop()} {words}'.strip()
        words = re.sub(r'\[([^\]]*)\]\([^)]*\)|\*\*?', r'\1', words)
        if words: alt += f', after the words: {words}'
    return re.sub(r'\s+', ' ', re.sub(r'[`$\\]', '', alt.replace('"', "'")))


def prepare_chapter(chapter, nb, site, anchors):
    "The notebook as the website shows it; nothing is executed."
    nb, cells, heading, prose = copy.deepcopy(nb), [], chapter.title, ''
    linker = site.linker(chapter.file)
    for cell in nb.cells:
        if cell.cell_type == 'markdown':
            prose = cell.source
            source = site.rewrite(cell.source, f'nbs/{chapter.path.name}', chapter.file)
            cell.source = outside_fences(linker(source), keep_together)
            if titles := re.findall(r'^#{1,4} +(.+)$', cell.source, re.M): heading = titles[-1]
            cells.append(cell)
            continue
        if cell.cell_type != 'code': continue
        directives, source = split_directives(cell.source)
        if 'hide' in directives or not source.strip(): continue
        if directives.keys() & {'export', 'exporti', 'exports'}:
            names = [n for n in defined_in(source) if n in anchors]
            lines = [f'({anchors[n]})=' for n in names]
            target = f'minidl.{chapter.module}.{names[0]}' if names else f'minidl.{chapter.module}'
            lines += ['', '{.exported}', f'exported to {{py:obj}}`minidl.{chapter.module} <{target}>`']
            cells.append(nbformat.v4.new_markdown_cell('\n'.join(lines), id=f'mark-{len(cells)}'))
        cell.source = source
        cell.metadata['mystnb'] = {'image': {'alt': alternative(source, prose, heading)}}
        for o in cell.outputs:    # the style sheet of the progress bar; the website has its own
            if 'text/html' in o.get('data', {}):
                html = re.sub(r'<style>.*?</style>', '', o.data['text/html'], flags=re.S)
                o.data['text/html'] = html.replace('border="1"', '')
        cell.outputs = [o for o in cell.outputs if o.get('data', {}).get('text/html', 'x').strip()]
        cells.append(cell)
    nb.cells = cells
    where = f'*Notebook:* [nbs/{chapter.path.name}]({site.blob}/nbs/{chapter.path.name})'
    if chapter.module: where += f'. *Reference:* {{py:mod}}`minidl.{chapter.module}`.'
    first = next(c for c in cells if c.cell_type == 'markdown')
    lines = first.source.splitlines()
    at = next((i for i, l in enumerate(lines) if l.startswith('# ')), -1) + 1
    first.source = '\n'.join(lines[:at] + ['', '{.where}', where, ''] + lines[at:])
    nb.metadata = {'kernelspec': {'name': 'python3', 'display_name': 'Python 3', 'language': 'python'},
                   'language_info': {'name': 'python', 'pygments_lexer': 'ipython3'}}
    return nb


# ---- reference

def event_names(modules):
    m = modules.get('learner')
    return set(m.definitions['EVENTS'].value or ()) if m and 'EVENTS' in m.definitions else set()


def signature(d, typed):
    def one(p):
        out = p.name + (f': {p.type}' if typed and p.type else '')
        if p.default is not None: out += f' = {p.default}' if typed and p.type else f'={p.default}'
        return out
    return f"({', '.join(one(p) for p in d.params)})"


def table(params, linker):
    "Parameters as a table, with the columns that are not empty; '' if no parameter is explained."
    rows = [p for p in params if p.name != '*']
    if not any(p.doc for p in rows): return ''
    columns = [('parameter', lambda p: code(p.name))]
    if any(p.type for p in rows): columns.append(('type', lambda p: code(p.type)))
    if any(p.default is not None for p in rows): columns.append(('default', lambda p: code(p.default)))
    columns.append(('meaning', lambda p: escape(p.doc)))
    lines = ['| ' + ' | '.join(c for c, _ in columns) + ' |', '|' + ' --- |' * len(columns)]
    lines += ['| ' + ' | '.join(f(p) for _, f in columns) + ' |' for p in rows]
    return '\n'.join(lines)


PLAIN_DECORATORS = r'(functools\.)?(cached_)?property|staticmethod|classmethod|(torch\.)?no_grad|.*\.setter|dataclass'


def decorator(text, linker):
    "`stepper(whole=True)` as markdown, its name linked if minidl has it."
    name, rest = re.match(r'([\w.]+)(.*)', text, re.S).groups()
    return linker(code(name)) + (f' {code(rest)}' if rest.strip('()') else '')


def constant(d):
    "A constant as markdown: many strings as words that wrap, other containers laid out, the rest as in the module."
    strings = isinstance(d.value, (list, tuple)) and all(isinstance(v, str) for v in d.value)
    if strings and len(repr(d.value)) > 60: return f'*A {type(d.value).__name__} of:* ' + ', '.join(map(code, d.value))
    node = ast.parse(d.source, mode='eval').body
    if len(d.source) > 300 and isinstance(node, ast.Call) and all(k.arg for k in node.keywords) and not node.args:
        return f'*A {ast.unparse(node.func)} with:* ' + ', '.join(code(k.arg) for k in node.keywords)
    text, start = d.source, f'{d.name} = '
    if d.note: text = re.sub(rf' *# *{re.escape(d.note)}$', '', text, flags=re.M)
    if isinstance(d.value, (list, tuple, dict, set)):
        lines = pprint.pformat(d.value, width=88 - len(start), compact=True, sort_dicts=False).splitlines()
        text = f'\n{" " * len(start)}'.join(lines)
    return f'```python\n{start}{text}\n```'


def entry(d, site, module, events, depth=0, parent=None):
    "One name of the reference, as markdown with directives of Sphinx's Python domain."
    linker = site.linker(f'api/{module.name}.md', (d.name, parent))
    params = table(d.params, linker)
    fence = ':' * (5 - depth)
    head, body = f'{fence}{{py:{d.kind}}} {d.name}', []
    if d.kind not in ('property', 'data'):
        if d.called: head += signature(d, not params)
        if d.returns and d.returns.type and not d.returns.doc: head += f' -> {d.returns.type}'
    if d.kind == 'method':
        names = {x.split('.')[-1] for x in d.decorators}
        if 'staticmethod' in names: body.append(':staticmethod:')
        if 'classmethod' in names: body.append(':classmethod:')
    if body: body.append('')
    if d.doc: body += [linker(escape_doc(d.doc)), '']
    if d.kind == 'data':
        if d.note: body += [linker(escape(d.note[0].upper() + d.note[1:])), '']
        body += [constant(d), '']
    elif d.note: body += [f'*Arguments:* {linker(escape(d.note))}', '']
    if params: body += [linker(params), '']
    if d.returns and d.returns.doc:
        kind_of = f'{code(d.returns.type)}: ' if d.returns.type else ''
        body += [f'*Returns* {kind_of}{linker(escape(d.returns.doc))}', '']
    if d.raises:
        body += ['*Raises*', '']
        body += [f'- `{name}`: {escape(words)}' for name, words in d.raises] + ['']
    facts = []
    if bases := [b for b in d.bases if b not in ('object', 'NamedTuple')]:
        facts.append('a kind of ' + ', '.join(Linker(linker.known)(code(b)) for b in bases))
    if made := [x for x in d.decorators if not re.match(PLAIN_DECORATORS, x)]:
        facts.append('decorated with ' + ', '.join(decorator(x, Linker(linker.known)) for x in made))
    if depth == 0:
        if patch := module.patches.get(d.name): facts.append(f'also a method, `{patch}`')
        if at := site.anchors.get(f'minidl.{module.name}.{d.name}'):
            facts.append(f'defined in {{ref}}`{at[0].title} <{at[1]}>`')
    if facts: body += ['{.where}', ' · '.join(facts), '']
    heard = [m.name for m in d.members if m.name in events]
    plain = [m for m in d.members if m.name not in events]
    told = [m for m in plain if m.doc or any(p.doc for p in m.params) or m.note]
    if heard: body += ['*Events:* ' + ', '.join(f'`{n}`' for n in heard), '']
    rest = [f'`{m.name}{signature(m, False) if m.kind == "method" else ""}`' for m in plain if m not in told]
    if rest: body += ['*Also:* ' + ', '.join(rest), '']
    if depth == 0 and d.kind == 'class':
        later = [f'{{py:obj}}`{name} <{full}>` ([{chapter.number}](../{chapter.file}))'
                 for name, full, chapter in site.methods.get(d.name, ()) if chapter.module != module.name]
        if later: body += ['*Further methods, of later chapters:* ' + ', '.join(later), '']
    for m in told: body += [entry(m, site, module, events, depth + 1, d.name), '']
    while body and not body[-1]: body.pop()
    return '\n'.join([head, *body, fence])


def in_all(root):
    "Modules whose names `from minidl.all import *` gives."
    path = root/'minidl'/'all.py'
    text = path.read_text(encoding='utf-8') if path.exists() else ''
    return set(re.findall(r'^from \.(\w+) import \*', text, re.M))


def overview(module):
    "The names of a module with the first sentence about each: tables of classes, functions, constants, exceptions."
    groups = {'class': [], 'function': [], 'constant': [], 'exception': []}
    for d in (module.definitions[n] for n in module.names):
        raised = any(re.search('(Exception|Error)$', b) for b in d.bases)
        words = re.split(r'(?<=[.?!])\s+(?=[A-Z`])|\n\s*\n', d.doc or d.note)[0]
        words = re.sub(r'(?<!\\)\|', r'\|', escape(' '.join(words.split())))
        words = words[:1].upper() + words[1:] if d.kind == 'data' else words
        group = groups['exception' if raised else {'data': 'constant'}.get(d.kind, d.kind)]
        group.append(f'| {{py:obj}}`{d.name} <minidl.{module.name}.{d.name}>` | {words} |')
    return '\n\n'.join('\n'.join(['{.overview}', f'| {kind} | what it is |', '| --- | --- |', *rows])
                       for kind, rows in groups.items() if rows)


def module_page(module, chapter, site, events, everywhere):
    lines = [f'# minidl.{module.name}', '', f'```{{py:module}} minidl.{module.name}', '```', '']
    if module.doc: lines += [site.linker(f'api/{module.name}.md')(escape_doc(module.doc)), '']
    facts = [f'Chapter [{chapter.title}](../{chapter.file})'] if chapter else []
    star = f'`from minidl.{"all" if everywhere else module.name} import *` gives these names'
    facts.append(star)
    lines += ['{.where}', '. '.join(facts) + '.', '', overview(module), '']
    for name in module.names: lines += [entry(module.definitions[name], site, module, events), '']
    return '\n'.join(lines)


def reference_index(chapters, modules, others):
    lines = ['# Reference', '', 'One page for each module; each module is made by one chapter. Names link to their '
             'signature, parameters and errors, and from there to the cell that defines them. See also the '
             '{ref}`index of all names <genindex>`.', '']
    for title, module, file in [(c.title, modules[c.module], c.file) for c in chapters if c.module in modules] + \
                               [(f'minidl.{m}', modules[m], None) for m in others]:
        lines += [f'## {title}', '']
        made = f', from [the chapter](../{file})' if file else ''
        lines += [f'{{py:mod}}`minidl.{module.name}`{made}', '', '{.names}']
        lines += [' '.join(f'{{py:obj}}`{n} <minidl.{module.name}.{n}>`' for n in module.names), '']
    toc = [c.module for c in chapters if c.module in modules] + others
    return '\n'.join([*lines, '```{toctree}', ':hidden:', '', *toc, '```', ''])


# ---- pages

def readme_sections(text):
    "The README before its first section (without the title), and its sections as {title: text}."
    parts = re.split(r'^## +(.+)$', text, flags=re.M)
    intro = re.sub(r'\A\s*# .*\n', '', parts[0]).strip()
    return intro, dict(zip((t.strip() for t in parts[1::2]), (p.strip() for p in parts[2::2])))


def chapter_table(chapters):
    lines = ['| chapter | what it is about |', '| --- | --- |']
    for c in chapters: lines.append(f'| [{escape(c.title)}]({c.file}) | {c.summary.replace("|", chr(92) + "|")} |')
    return '\n'.join(lines)


def settings(root):
    cfg = ConfigParser(delimiters=['='], inline_comment_prefixes=None)
    cfg.read(root/'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']


def prepare(root, out):
    "Write everything that Sphinx reads, but for docs/conf.py and docs/static."
    shutil.rmtree(out, ignore_errors=True)
    for folder in 'chapters', 'api': (out/folder).mkdir(parents=True)
    cfg = settings(root)
    site = Site(root, out, f"{cfg['git_url']}/blob/{cfg['branch']}")

    read = [read_chapter(p) for p in sorted((root/'nbs').glob('[0-9]*.ipynb'))]
    chapters = site.chapters = [c for c, _ in read]
    modules = read_modules(root/'minidl')
    modules = {m: d for m, d in modules.items() if d.names}
    others = [m for m in modules if m not in {c.module for c in chapters}]
    site.pages = {f'nbs/{c.path.name}': c.file for c in chapters}
    site.pages |= {'README.md': 'guide.md', 'minidl': 'api/index.md', 'nbs': 'index.md'}
    site.pages |= {f'minidl/{m}.py': f'api/{m}.md' for m in modules}
    site.pages |= {f: f'{page}.md' for f, page in PAGES.items() if (root/f).exists()}

    starred = in_all(root) & set(modules)
    for name in starred: site.known |= {n: f'minidl.{name}.{n}' for n in modules[name].names}
    if 'Learner' in site.known:    # the methods that are explained, and those that later chapters add
        learner = modules['learner'].definitions['Learner']
        site.known |= {f'Learner.{m.name}': f'minidl.learner.Learner.{m.name}' for m in learner.members if m.doc}
        site.known |= {patch: f'minidl.{m.name}.{f}' for m in modules.values() for f, patch in m.patches.items()}
    for chapter, nb in read:
        if chapter.module not in modules: continue
        found = cell_anchors(chapter, nb, modules[chapter.module].names)
        site.anchors |= {f'minidl.{chapter.module}.{n}': (chapter, a) for n, a in found.items()}
        for function, patch in modules[chapter.module].patches.items():
            owner, name = patch.rsplit('.', 1)
            full = f'minidl.{chapter.module}.{function}'
            if full in site.anchors: site.methods.setdefault(owner, []).append((name, full, chapter))

    everyday = site.known
    for chapter, nb in read:
        module = modules.get(chapter.module)
        own = {n: f'minidl.{module.name}.{n}' for n in module.names} if module else {}
        site.known = everyday | own
        anchors = {n.rsplit('.', 1)[1]: a for n, (c, a) in site.anchors.items() if c is chapter}
        nbformat.write(prepare_chapter(chapter, nb, site, anchors), out/chapter.file)
    events, by_module = event_names(modules), {c.module: c for c in chapters}
    for name, module in modules.items():
        site.known = everyday | {n: f'minidl.{name}.{n}' for n in module.names}
        page = module_page(module, by_module.get(name), site, events, name in starred)
        (out/'api'/f'{name}.md').write_text(page, encoding='utf-8')
    site.known = everyday
    (out/'api'/'index.md').write_text(reference_index(chapters, modules, others), encoding='utf-8')

    intro, sections = readme_sections((root/'README.md').read_text(encoding='utf-8'))
    landing = {t: sections[t] for t in ON_LANDING if t in sections}
    guide = {t: s for t, s in sections.items() if t not in landing and t not in LEFT_OUT}
    show = lambda text, page: site.linker(page)(site.rewrite(text, 'README.md', page))
    parts = {'intro': show(intro, 'index.md'), 'chapters': chapter_table(chapters),
             'start': '\n\n'.join(f'## {t}\n\n{show(s, "index.md")}' for t, s in landing.items())}
    page = (root/'docs'/'index.md').read_text(encoding='utf-8')
    for key, text in parts.items(): page = page.replace(f'<!-- {key} -->', text)
    more = ['guide'] * bool(guide) + [p for f, p in PAGES.items() if (root/f).exists()]
    page = page.replace('<!-- toc -->', toctrees(chapters, more))
    (out/'index.md').write_text(page.replace('<!-- first -->', chapters[0].file), encoding='utf-8')
    if guide:
        text = '\n\n'.join(f'## {t}\n\n{show(s, "guide.md")}' for t, s in guide.items())
        (out/'guide.md').write_text(f'# Guide\n\n{text}\n', encoding='utf-8')
    for f, p in PAGES.items():
        if not (root/f).exists(): continue
        text = site.rewrite((root/f).read_text(encoding='utf-8'), f, f'{p}.md')
        (out/f'{p}.md').write_text(site.linker(f'{p}.md')(text) + '\n', encoding='utf-8')
    return chapters, modules


def toctrees(chapters, more):
    def tree(caption, entries):
        return '\n'.join(['```{toctree}', ':hidden:', f':caption: {caption}', '', *entries, '```'])
    trees = [tree('Chapters', [c.file.removesuffix('.ipynb') for c in chapters]), tree('Reference', ['api/index'])]
    if more: trees.append(tree('More', more))
    return '\n\n'.join(trees)


# ---- links

class Page(HTMLParser):
    "Where a page can be linked to, what it links to, and what it loads from elsewhere."
    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.ids, self.links, self.loads = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if attrs.get('id'): self.ids.add(attrs['id'])
        if tag == 'a' and attrs.get('name'): self.ids.add(attrs['name'])
        for key in 'href', 'src':
            if not (target := attrs.get(key)): continue
            self.links.append(target)
            only_said = attrs.get('rel') in ('canonical', 'alternate', 'author', 'license')
            loaded = key == 'src' or (tag == 'link' and not only_said)
            if loaded and urlsplit(target).netloc: self.loads.append(target)

    handle_startendtag = handle_starttag


def check_links(folder):
    "Sentences about dead links to local files and fragments, and about files that are loaded from elsewhere."
    folder = Path(folder).resolve()
    pages = {p.resolve(): Page(p.read_text(encoding='utf-8')) for p in folder.rglob('*.html')}
    wrong = []
    for path, page in sorted(pages.items()):
        name = path.relative_to(folder).as_posix()
        wrong += [f'{name} loads {target} from elsewhere' for target in page.loads]
        for target in dict.fromkeys(page.links):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc: continue
            to = (path.parent/unquote(parts.path)).resolve() if parts.path else path
            if to.is_dir(): to = to/'index.html'
            if not to.is_file(): wrong.append(f'{name} links to {target}: there is no such file')
            elif not to.is_relative_to(folder): wrong.append(f'{name} links to {target}: outside the website')
            elif parts.fragment and to in pages and unquote(parts.fragment) not in pages[to].ids:
                wrong.append(f'{name} links to {target}: that page has no such place')
    return wrong, len(pages), sum(len(p.links) for p in pages.values())


# ---- all of it

def copy_mathjax(static):
    "MathJax in one file that draws formulas without fonts or network; Sphinx would load it from a server."
    from importlib.metadata import files
    for f in files('sphinx-mathjax-offline'):
        if f.name == 'tex-svg.js':
            (static/'mathjax').mkdir(parents=True, exist_ok=True)
            shutil.copy(f.locate(), static/'mathjax'/'tex-svg.js')
            return
    sys.exit('sphinx-mathjax-offline has no tex-svg.js. Install the version that constraints.txt names.')


def build(root, out, work):
    from sphinx.cmd.build import main as sphinx
    new, unfinished = work/'new', work/'unfinished'
    if unfinished.exists():    # Sphinx would leave its pages as they are, without pictures that were not yet copied
        for folder in 'html', 'doctrees': shutil.rmtree(work/folder, ignore_errors=True)
    chapters, modules = prepare(root, new)
    refresh(new, work/'src')
    copy_mathjax(work/'static')
    unfinished.touch()
    os.environ['MINIDL_DOCS_STATIC'] = str(work/'static')
    jobs = str(min(2, os.cpu_count() or 1))
    failed = sphinx(['-q', '-W', '--keep-going', '-j', jobs, '-b', 'html', '-c', str(root/'docs'),
                     '-d', str(work/'doctrees'), str(work/'src'), str(work/'html')])
    if failed: sys.exit('The website was built with warnings, see above. It was left as it was.')
    unfinished.unlink()
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(work/'html', out, ignore=shutil.ignore_patterns('.buildinfo*', '_sources'))
    return chapters, modules


def refresh(new, old):
    "Bring `old` to what `new` is, leaving files alone that are the same, so that Sphinx reads only what changed."
    wanted = {p.relative_to(new) for p in new.rglob('*') if p.is_file()}
    for p in [p for p in old.rglob('*') if p.is_file() and p.relative_to(old) not in wanted]: p.unlink()
    for name in wanted:
        here, there = new/name, old/name
        there.parent.mkdir(parents=True, exist_ok=True)
        if not there.exists() or there.read_bytes() != here.read_bytes(): shutil.copy(here, there)
    shutil.rmtree(new)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=ROOT/'_docs', help='where the pages go (default: _docs)')
    parser.add_argument('--check', type=Path, help='only check the links of the pages in this folder')
    args = parser.parse_args()
    folder = args.check
    if not folder:
        chapters, modules = build(ROOT, args.out, ROOT/'build'/'docs')
        folder = args.out
    wrong, n_pages, n_links = check_links(folder)
    for sentence in wrong: print(sentence, file=sys.stderr)
    if wrong: sys.exit(f'{len(wrong)} dead links')
    if not n_pages: sys.exit(f'{folder} has no pages.')
    if not args.check:
        print(f'{len(chapters)} chapters and {len(modules)} modules; open {os.path.relpath(folder)}/index.html')
    print(f'{n_links} links on {n_pages} pages, none dead')


if __name__ == '__main__': main()
