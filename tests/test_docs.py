"What prepares the website, on a small made-up repository; `make docs` builds and checks the real one."
import configparser
import importlib.util
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location('build_docs', ROOT/'tools'/'build_docs.py')
docs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(docs)

MODULE = '''
"""What it is about."""
__all__ = ['SIZES', 'scale', 'Base', 'Scaler', 'pair', 'brief']
SIZES = (1, 2)   # sizes that are allowed
def _hidden(): pass
def scale(
    x:Tensor,      # pictures, (bs, h, w)
    by:int|None=2, # factor, in *whole* steps
                   # from 1 on
    *args,
    how='a|b',     # kind
)->Tensor:         # the same shape
    """Multiplies `x`.

    Second_paragraph with <angles>."""
    if by < 1: raise ValueError(f'{by} is no factor. Give 1 or more.')
    def inner(): raise KeyError('not ours')
    return x * by

class Base:
    "A base."
    def __init__(self, size): self.size = size   # a number

class Scaler(Base):
    "Scales with `scale`, like `Base`."
    def before_fit(self, learn): pass
    def run(self, a, b):   # a: the first; b: the second
        "Runs."
    @property
    def wide(self): return self.size > 1
    def _quiet(self): pass

def pair(a, b): return a, b   # two tensors of one shape
def brief(path):   # where to look
    "Short."
Learner.scale = scale
'''


def read(source=MODULE):
    module = docs.read_module(source, 'tiny')
    docs.inherit_arguments({'tiny': module})
    return module


def test_a_module_is_read_with_its_docments_and_errors():
    d = read().definitions['scale']
    assert [(p.name, p.type, p.default, p.doc) for p in d.params] == [
        ('x', 'Tensor', None, 'pictures, (bs, h, w)'), ('by', 'int | None', '2', 'factor, in *whole* steps from 1 on'),
        ('*args', '', None, ''), ('how', '', "'a|b'", 'kind')]
    assert (d.returns.type, d.returns.doc) == ('Tensor', 'the same shape')
    assert d.raises == [('ValueError', '… is no factor. Give 1 or more.')]


def test_only_exported_names_are_listed_in_order_of_definition():
    module = read()
    assert module.names == ['SIZES', 'scale', 'Base', 'Scaler', 'pair', 'brief']
    assert module.patches == {'scale': 'Learner.scale'}


def test_a_package_is_read_as_what_its_init_takes_from_its_modules(tmp_path):
    (tmp_path/'pack').mkdir()
    (tmp_path/'pack'/'__init__.py').write_text('"Checks."\nfrom .core import check, other\n__all__ = ["check"]')
    (tmp_path/'pack'/'core.py').write_text('def check(name):   # such as 1.2\n    "Looks."\ndef other(): pass')
    module = docs.read_modules(tmp_path)['pack']
    assert module.doc == 'Checks.' and module.names == ['check']
    assert module.definitions['check'].params[0].doc == 'such as 1.2'


def test_a_class_without_init_takes_the_arguments_of_its_base():
    assert [p.name for p in read().definitions['Scaler'].params] == ['size']


def test_a_comment_behind_a_def_belongs_to_its_only_or_its_named_parameters_or_is_a_note():
    d = read().definitions
    assert [p.doc for p in d['brief'].params] == ['where to look']
    assert [p.doc for p in d['Scaler'].members[1].params] == ['the first', 'the second']
    assert d['pair'].note == 'two tensors of one shape' and not any(p.doc for p in d['pair'].params)


def test_words_of_docstrings_mean_themselves_and_code_stays_code():
    assert docs.escape('a_b <c> `d_e\nf_g` [1] $x$ *') == r'a\_b \<c\> `d_e' + '\n' + r'f_g` \[1\] \$x\$ \*'
    assert docs.code('int|None') == r'`int\|None`'


def test_a_formula_is_not_torn_from_its_punctuation():
    kept = docs.keep_together('Of $n$, ($x$) and `$a$.`, $y$ for $5')
    assert kept == 'Of [$n$,]{.together} [($x$)]{.together} and `$a$.`, $y$ for $5'
    assert docs.keep_together('$$x$$.') == '$$x$$.'


def test_constants_are_shown_as_what_they_are_in_the_end():
    source = """
_PARTS = 'batch', 'fit'
EVENTS = '''before_fit before_epoch before_train
before_batch'''.split()
EVENTS += [f'after_cancel_{part}' for part in _PARTS]
NAMES = dict(zip(_PARTS, range(2)))   # numbers
WIDE = {f'key {i}': 'x' * 50 for i in range(2)}
LAYERS = (nn.Linear,   # what may be frozen
          nn.Conv2d)
CHUNK = 2**18
FILES = dict(""" + ', '.join(f'part_{i}=File("a long address of a file")' for i in range(9)) + """)
BROKEN = [1]
BROKEN += nn.nothing
"""
    d = docs.read_module(source, 'tiny').definitions
    shown = {name: docs.constant(d[name]) for name in d}
    names = '`before_fit`, `before_epoch`, `before_train`, `before_batch`, `after_cancel_batch`, `after_cancel_fit`'
    assert shown['EVENTS'] == f'*A list of:* {names}'
    fenced = lambda code: f'```python\n{code}\n```'
    assert shown['NAMES'] == fenced("NAMES = {'batch': 0, 'fit': 1}")
    assert shown['WIDE'] == fenced(f"WIDE = {{'key 0': '{'x' * 50}',\n        'key 1': '{'x' * 50}'}}")
    assert shown['LAYERS'] == fenced('LAYERS = (nn.Linear,\n          nn.Conv2d)')   # needs an import: as written
    assert shown['CHUNK'] == fenced('CHUNK = 2**18')
    assert shown['FILES'] == '*A dict with:* ' + ', '.join(f'`part_{i}`' for i in range(9))
    assert d['BROKEN'].value is None                                              # not a stale [1]


def test_the_overview_has_tables_of_classes_functions_constants_and_exceptions():
    source = 'class Stop(Exception): "Ends `a|b`."\nSIZES = 1, 2   # allowed\n' \
             'def f(): """First_one\n    goes on. Second."""\nclass A: pass\n__all__ = ["Stop", "SIZES", "f", "A"]'
    row = lambda name, words: f'| {{py:obj}}`{name} <minidl.tiny.{name}>` | {words} |'
    table = lambda kind, row: f'{{.overview}}\n| {kind} | what it is |\n| --- | --- |\n{row}'
    assert docs.overview(docs.read_module(source, 'tiny')).split('\n\n') == [
        table('class', row('A', '')), table('function', row('f', r'First\_one goes on.')),
        table('constant', row('SIZES', 'Allowed')), table('exception', row('Stop', r'Ends `a\|b`.'))]


def code_cell(source, *outputs): return nbformat.v4.new_code_cell(source, outputs=list(outputs))


@pytest.fixture
def repo(tmp_path):
    "A repository with two chapters."
    for name in 'nbs', 'minidl', 'docs', 'images': (tmp_path/name).mkdir()
    (tmp_path/'images'/'a.png').write_bytes(b'picture')
    (tmp_path/'minidl'/'tiny.py').write_text(MODULE)
    (tmp_path/'minidl'/'all.py').write_text('from .tiny import *\n')
    (tmp_path/'settings.ini').write_text('[DEFAULT]\ngit_url = https://example.org/r\nbranch = main\n')
    (tmp_path/'docs'/'index.md').write_text('# t\n\n<!-- intro -->\n\n[go](<!-- first -->)\n\n<!-- chapters -->\n\n'
                                            '<!-- start -->\n\n<!-- toc -->\n')
    (tmp_path/'README.md').write_text('# t\n\nIntro ![p](images/a.png) to [one](nbs/01_one.ipynb).\n\n'
                                      '## Two commands\n\nmake `scale`\n\n## The chapters\n\nold\n\n'
                                      '## Data\n\nin [settings](settings.ini)\n')
    html = nbformat.v4.new_output('display_data', data={'text/html': '<style>p {}</style>\n'})
    one = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_markdown_cell('# 01 One\n\n> The first\n> of two.\n\n'
                                      '**You need** `scale` and [`scale`](02_two.ipynb#Part), `scale`.'),
        code_cell('#| default_exp tiny'),
        code_cell('#| hide\nsecret = 1'),
        code_cell(MODULE.split("'brief']")[1].split('Learner')[0].replace('\nSIZES', '#| export\nSIZES'), html),
        code_cell('#| eval: false\nprint(1)  # x[0](y)', nbformat.v4.new_output('stream', text='1\n')),
        nbformat.v4.new_markdown_cell('## Next\n\nChapters 01 and 02, chapter 01, [chapter 02](02_two.ipynb), `scale`, '
                                      '`x[0](y)`, `Base()`; see [two](02_two.ipynb) and [it](../minidl/tiny.py).'
                                      '\n\n```python\n`scale` [a](02_two.ipynb)\n```')])
    two = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell('# 02 Two\n\n> The second')])
    nbformat.write(one, tmp_path/'nbs'/'01_one.ipynb')
    nbformat.write(two, tmp_path/'nbs'/'02_two.ipynb')
    return tmp_path


def prepared(repo):
    before = {p: p.read_bytes() for p in repo.rglob('*') if p.is_file()}
    out = repo/'build'
    docs.prepare(repo, out)
    assert all(p.read_bytes() == b for p, b in before.items())   # the notebooks stay as they are
    return out, nbformat.read(out/'chapters'/'01_one.ipynb', as_version=4)


def test_directives_vanish_and_exported_cells_get_a_mark_and_anchors(repo):
    _, nb = prepared(repo)
    sources = [c.source for c in nb.cells]
    assert not any('#|' in s or 'secret' in s for s in sources)
    at = next(i for i, s in enumerate(sources) if s.startswith('SIZES'))
    assert '(def-tiny-scale)=' in sources[at-1]
    assert '{.exported}\nexported to {py:obj}`minidl.tiny <minidl.tiny.SIZES>`' in sources[at-1]
    assert '(def-tiny--hidden)=' not in sources[at-1]
    assert nb.cells[at].outputs == []                            # a style sheet alone is nothing to see
    assert nb.cells[at+1].outputs[0].text == '1\n'               # other outputs stay
    assert nb.cells[at].metadata.mystnb.image.alt == (
        "Picture drawn by the code above, in the section '01 One', after the words: You need scale and scale, scale.")


def test_a_picture_is_described_by_its_axes_titles_and_lines_or_else_by_the_words_before_it():
    code = ('ax.plot(x, y, label="a `run`")\nax.plot(x, z, label=f"{i}")\n'
            'ax.set(ylabel="loss", xlabel="$w_1$")\nax.set_title(f"lr {lr}")')
    in_section = "Picture drawn by the code above, in the section 'Part'"
    prose = 'Look.\n\n## Part\n\nNot this one. Both of *these*, though [shown](x.md) here, are. See?'
    assert docs.alternative(code, prose, 'Part') == (
        f'{in_section}. Vertical axis: loss. Horizontal axis: w_1. Title: lr …. Legend: a run')
    words = f'{in_section}, after the words: Both of these, though shown here, are. See?'
    assert docs.alternative('show(x)', prose, 'Part') == docs.alternative('no Python', prose, 'Part') == words
    assert docs.alternative('show(x)', '## Part', 'Part') == in_section


def test_names_are_linked_once_a_section_and_never_in_code_or_links(repo):
    _, nb = prepared(repo)
    link = '{py:obj}`scale <minidl.tiny.scale>`'
    assert f'**You need** {link} and [`scale`](02_two.ipynb#Part), `scale`.' in nb.cells[0].source
    last = nb.cells[-1].source
    assert (f'Chapters 01 and [02](02_two.ipynb), chapter 01, [chapter 02](02_two.ipynb), {link}, `x[0](y)`, '
            '{py:obj}`Base() <minidl.tiny.Base>`; see [two](02_two.ipynb) and [it](../api/tiny.md).') in last
    assert '```python\n`scale` [a](02_two.ipynb)\n```' in last


def test_the_reference_page_has_signature_table_errors_and_the_way_to_the_cell(repo):
    out, _ = prepared(repo)
    page = (out/'api'/'tiny.md').read_text()
    assert "{py:function} scale(x, by=2, *args, how='a|b')" in page
    assert r'| `by` | `int \| None` | `2` | factor, in \*whole\* steps from 1 on |' in page
    assert '*Returns* `Tensor`: the same shape' in page and r'Second\_paragraph with \<angles\>.' in page
    assert '- `ValueError`: … is no factor.' in page
    assert 'also a method, `Learner.scale` · defined in {ref}`01 One <def-tiny-scale>`' in page
    assert '{py:class} Scaler(size)' in page and 'a kind of {py:obj}`Base <minidl.tiny.Base>`' in page
    assert 'hidden' not in page and '_quiet' not in page


def test_a_class_names_the_methods_that_later_chapters_give_it(repo):
    source = 'def grow(base): pass\ndef hidden(base): pass\nBase.grow_up = grow\nBase.hidden = hidden\n'
    (repo/'minidl'/'more.py').write_text(source + '__all__ = ["grow"]')
    cells = [nbformat.v4.new_markdown_cell('# 02 Two'), code_cell('#| default_exp more')]
    cells.append(code_cell('#| export\n' + source))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), repo/'nbs'/'02_two.ipynb')
    out, _ = prepared(repo)
    page = (out/'api'/'tiny.md').read_text()
    method = '{py:obj}`grow_up <minidl.more.grow>` ([02](../chapters/02_two.ipynb))'
    line = f'*Further methods, of later chapters:* {method}\n'
    assert page.count('Further methods') == 1
    assert line in page[page.index('{py:class} Base'):page.index('{py:class} Scaler')]


def test_the_landing_page_is_made_of_the_readme_and_the_chapters(repo):
    out, _ = prepared(repo)
    page = (out/'index.md').read_text()
    assert 'Intro ![p](images/a.png) to [one](chapters/01_one.ipynb).' in page and (out/'images'/'a.png').exists()
    assert '| [01 One](chapters/01_one.ipynb) | The first of two. |' in page and 'old' not in page
    assert '## Two commands\n\nmake {py:obj}`scale <minidl.tiny.scale>`' in page
    assert '[go](chapters/01_one.ipynb)' in page
    guide = '# Guide\n\n## Data\n\nin [settings](https://example.org/r/blob/main/settings.ini)\n'
    assert (out/'guide.md').read_text() == guide


def test_names_that_differ_in_case_alone_get_anchors_of_their_own(repo):
    chapter = docs.Chapter(repo/'nbs'/'01_one.ipynb', '01 One', '', 'tiny')
    nb = nbformat.v4.new_notebook(cells=[code_cell('#| export\ndef hook(): pass\nclass Hook: pass\nclass HOOK: pass')])
    assert docs.cell_anchors(chapter, nb, ['hook', 'Hook', 'HOOK']) == {
        'hook': 'def-tiny-hook', 'Hook': 'def-tiny-hook-2', 'HOOK': 'def-tiny-hook-3'}


def test_the_link_checker_finds_what_is_dead_and_what_comes_from_elsewhere(tmp_path):
    (tmp_path/'sub').mkdir()
    (tmp_path/'index.html').write_text('<p id="here"></p><a href="#here">x</a><a href="#gone">x</a>'
                                       '<a href="sub/b.html#there">x</a><a href="sub/b.html#gone">x</a>'
                                       '<a href="c.html">x</a><img src="no.png"><a href="https://a.b/c">x</a>')
    (tmp_path/'sub'/'b.html').write_text('<p id="there"></p><a href="../index.html">x</a>'
                                         '<script src="https://a.b/c.js"></script>')
    wrong, n_pages, n_links = docs.check_links(tmp_path)
    assert (n_pages, n_links) == (2, 9)
    assert wrong == ['index.html links to #gone: that page has no such place',
                     'index.html links to sub/b.html#gone: that page has no such place',
                     'index.html links to c.html: there is no such file',
                     'index.html links to no.png: there is no such file',
                     'sub/b.html loads https://a.b/c.js from elsewhere']


def test_a_folder_without_pages_is_no_checked_website(tmp_path, monkeypatch):
    for folder in tmp_path, tmp_path/'nowhere':
        monkeypatch.setattr(sys, 'argv', ['build_docs.py', '--check', str(folder)])
        with pytest.raises(SystemExit, match='has no pages'): docs.main()
    (tmp_path/'index.html').write_text('<p>Here.</p>')
    monkeypatch.setattr(sys, 'argv', ['build_docs.py', '--check', str(tmp_path)])
    docs.main()


def test_refreshing_leaves_unchanged_files_alone_and_drops_old_ones(tmp_path):
    new, old = tmp_path/'new', tmp_path/'old'
    for folder, files in (new, {'a': '1', 'b/c': '2'}), (old, {'a': '1', 'b/c': '0', 'd': '3'}):
        for name, text in files.items():
            (folder/name).parent.mkdir(parents=True, exist_ok=True)
            (folder/name).write_text(text)
    stamp = (old/'a').stat().st_mtime_ns
    docs.refresh(new, old)
    texts = {p.relative_to(old).as_posix(): p.read_text() for p in old.rglob('*') if p.is_file()}
    assert texts == {'a': '1', 'b/c': '2'}
    assert (old/'a').stat().st_mtime_ns == stamp


def test_a_build_that_did_not_end_is_done_anew(repo, monkeypatch):
    work, calls = repo/'work', []

    def sphinx(args):    # the first time it stops in the middle
        calls.append((work/'html'/'old').exists())
        (work/'html').mkdir(exist_ok=True)
        (work/'html'/'old').touch()
        if len(calls) == 1: raise KeyboardInterrupt
    monkeypatch.setenv('MINIDL_DOCS_STATIC', '')    # `build` sets it
    monkeypatch.setitem(sys.modules, 'sphinx.cmd.build', SimpleNamespace(main=sphinx))
    monkeypatch.setattr(docs, 'copy_mathjax', lambda static: None)
    with pytest.raises(KeyboardInterrupt): docs.build(repo, repo/'site', work)
    assert not (repo/'site').exists()
    for _ in range(2): docs.build(repo, repo/'site', work)
    assert calls == [False, False, True]    # after an interruption nothing is kept, after success the pages are


def test_the_real_chapters_and_modules_can_be_prepared(tmp_path):
    chapters, modules = docs.prepare(ROOT, tmp_path/'src')
    pages = '\n'.join(p.read_text(encoding='utf-8') for p in (tmp_path/'src'/'api').glob('*.md'))
    for chapter in chapters:
        found = set(re.findall(rf'<(def-{chapter.module.replace("_", "[_-]")}-[\w-]+)>`', pages))
        anchors = set(re.findall(r'\((def-[\w-]+)\)=', (tmp_path/'src'/chapter.file).read_text(encoding='utf-8')))
        assert found and found <= anchors, chapter.module
        assert len(found) == len(modules[chapter.module].names), chapter.module   # every name leads to its cell
    further = next(l for l in pages.splitlines() if l.startswith('*Further methods, of later chapters:*'))
    assert {'fit_one_cycle', 'lr_find', 'fine_tune'} <= set(re.findall(r'`(\w+) <', further))
    assert {'before_fit', 'after_cancel_fit'} <= docs.event_names(modules)


def test_what_the_website_needs_is_pinned():
    cfg = configparser.ConfigParser(delimiters=['='])
    cfg.read(ROOT/'settings.ini')
    pins = re.findall(r'^([\w-]+)==', (ROOT/'constraints.txt').read_text(), re.M)
    assert {re.match(r'[\w-]+', r)[0] for r in cfg['DEFAULT']['docs_requirements'].split()} <= set(pins)
