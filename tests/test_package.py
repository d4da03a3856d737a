"""What the package promises as a whole: layering, one name one definition, cheap imports, a wheel that works, a README
that runs."""
import ast
import configparser
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
import torch

import minidl

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT/'nbs').glob('[0-9]*.ipynb'))
BY_HAND = {'__init__', 'all', '_modidx'}


def module_of(path):
    "Name of the module that a chapter makes."
    for cell in nbformat.read(path, as_version=4).cells:
        if m := re.match(r'#\| default_exp (\w+)', cell.source): return m[1]


MODULES = [module_of(p) for p in CHAPTERS]


def imported(module):
    "Modules of minidl that a module imports, and the top-level packages that it imports when it is imported itself."
    tree = ast.parse((ROOT/'minidl'/f'{module}.py').read_text(encoding='utf-8'))
    ours, at_import = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            name = '.' * node.level + (node.module or '')
            if name.startswith('.'): ours |= {node.module} if node.module else {a.name for a in node.names}
            elif name.startswith('minidl.'): ours.add(name.split('.')[1])
    for node in tree.body:
        if isinstance(node, ast.Import): at_import |= {a.name for a in node.names}
        if isinstance(node, ast.ImportFrom) and not node.level: at_import.add(node.module)
    return ours, at_import


def names(module):
    tree = ast.parse((ROOT/'minidl'/f'{module}.py').read_text(encoding='utf-8'))
    return next(ast.literal_eval(n.value)
                for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == '__all__')


def test_every_chapter_makes_its_module_and_no_other_is_there():
    assert len(set(MODULES)) == len(CHAPTERS)
    assert {p.stem for p in (ROOT/'minidl').glob('*.py')} - BY_HAND == set(MODULES)


@pytest.mark.parametrize('i', range(len(CHAPTERS)), ids=MODULES)
def test_a_module_imports_only_modules_of_earlier_chapters(i):
    ours, _ = imported(MODULES[i])
    assert ours <= set(MODULES[:i]), f'{MODULES[i]} imports {ours - set(MODULES[:i])}'


@pytest.mark.parametrize('module', MODULES)
def test_exported_code_needs_no_development_package_and_no_pyplot_at_import(module):
    _, at_import = imported(module)
    assert not {n.split('.')[0] for n in at_import} & {'fastcore', 'nbdev', 'IPython', 'pandas', 'spacy', 'sklearn'}
    assert 'matplotlib.pyplot' not in at_import
    assert not re.search(r'\b(fastcore|nbdev)\b',
                         '\n'.join(l for l in (ROOT/'minidl'/f'{module}.py').read_text().splitlines() if 'import' in l))


def test_one_name_has_one_definition():
    seen = {}
    for module in MODULES:
        for name in names(module): seen.setdefault(name, []).append(module)
    assert {n: m for n, m in seen.items() if len(m) > 1} == {}


def test_all_gives_what_the_chapters_export_and_hides_nothing_of_torch():
    space = {}
    exec('from minidl.all import *', space)
    missing = {n for m in MODULES if m != 'backprop' for n in names(m)} - set(space)
    assert missing == set()
    ours = {n for m in MODULES if m != 'backprop' for n in names(m)}
    meant_for_use = {'SGD', 'Adam', 'AdamW', 'RMSProp', 'LAMB', 'BatchNorm', 'LayerNorm'}
    import torch.utils.data
    assert {n for n in ours if hasattr(torch.nn, n) or hasattr(torch.utils.data, n)} - meant_for_use == set()


def python(code, cwd=None, **env):
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=os.environ | env,
                          timeout=400, cwd=cwd)


def test_importing_minidl_is_cheap_and_gives_the_version():
    out = python("import sys, minidl; print(minidl.__version__, 'torch' in sys.modules)")
    assert out.stdout.split() == [minidl.__version__, 'False'], out.stderr


def test_importing_all_draws_nothing_and_compiles_nothing():
    slow = 'matplotlib.pyplot', 'fastcore', 'nbdev', 'pandas', 'torch._inductor', 'IPython'
    out = python(f"import sys, minidl.all; print([m for m in {slow} if m in sys.modules])")
    assert out.stdout.strip() == '[]', out.stdout + out.stderr


def test_the_version_is_the_same_everywhere():
    cfg = configparser.ConfigParser(delimiters=['='])
    cfg.read(ROOT/'settings.ini')
    assert cfg['DEFAULT']['version'] == minidl.__version__


def test_every_chapter_opens_and_closes_as_agreed():
    for path in CHAPTERS:
        cells = nbformat.read(path, as_version=4).cells
        text = '\n'.join(c.source for c in cells if c.cell_type == 'markdown')
        assert cells[0].source.startswith(f"# {path.stem.split('_')[0]} "), path.stem
        for part in ('By the end you will be able to', 'You need', '## Summary', '## Questions', '## Exercises',
                     '## Papers and links', '<details>'):
            assert part in text, f'{path.stem} lacks {part}'


def test_saved_outputs_come_from_the_samples_and_show_no_path_of_a_machine():
    for path in CHAPTERS:
        nb = nbformat.read(path, as_version=4)
        code = [c for c in nb.cells if c.cell_type == 'code']
        assert any(c.outputs for c in code), f'{path.stem} has no outputs'
        assert not [o for c in code for o in c.outputs if o.output_type == 'error'], path.stem
        text = ''.join(o.get('text', '') for c in code for o in c.outputs)
        assert 'from the folder' not in text and 'the public data set' not in text, path.stem
        assert not re.search(r'/(work|root|home/\w+|tmp)/', text), path.stem
        assert path.stat().st_size < 1_000_000, f'{path.stem} is {path.stat().st_size} bytes'


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    "The unpacked wheel, built as pip builds it but for the isolated environment."
    folder = tmp_path_factory.mktemp('wheel')
    out = subprocess.run([sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '-w', str(folder), str(ROOT)],
                         capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    with zipfile.ZipFile(next(folder.glob('*.whl'))) as z: z.extractall(folder/'site')
    return folder/'site'


def test_the_wheel_holds_everything_that_runs(wheel):
    inside = {p.name for p in (wheel/'minidl').iterdir()}
    assert {p.name for p in (ROOT/'minidl').glob('*.py')} | {'py.typed', 'samples'} <= inside
    packed = {p.relative_to(wheel/'minidl'/'samples') for p in (wheel/'minidl'/'samples').rglob('*') if p.is_file()}
    assert packed == {p.relative_to(ROOT/'data'/'samples') for p in (ROOT/'data'/'samples').rglob('*') if p.is_file()}


def test_the_wheel_outside_the_clone_loads_a_sample_and_trains(wheel, tmp_path):
    code = '''
import minidl
from minidl.all import *
x_train, y_train, x_valid, y_valid = load_mnist(get_data('mnist'))
from torch.utils.data import TensorDataset
dls = get_dls(TensorDataset(x_train.flatten(1), y_train), TensorDataset(x_valid.flatten(1), y_valid), bs=64)
learn = Learner(nn.Linear(784, 10), dls, F.cross_entropy, lr=1e-3, metrics=[accuracy])
learn.fit(1)
print(minidl.__file__)
assert learn.recorder.values[-1]['accuracy'] > 0.6
'''
    out = python(code, PYTHONPATH=str(wheel), MINIDL_CACHE=str(tmp_path), cwd=str(tmp_path))
    assert out.returncode == 0, out.stderr
    assert str(wheel) in out.stdout


def readme_examples():
    section = re.search(r'## In a notebook of your own\n(.*?)\n## ', (ROOT/'README.md').read_text(encoding='utf-8'),
                        re.S)[1]
    return re.findall(r'```python\n(.*?)```', section, re.S)


@pytest.mark.parametrize('number, least', [(0, 0.8), (1, 0.2), (2, 0.8)])
def test_the_readme_examples_run_as_they_stand(tmp_path, number, least):
    code = readme_examples()[number]
    assert len(code.strip().splitlines()) <= 12
    out = python(code + "\nprint('reached', learn.recorder.values[-1]['accuracy'])", cwd=str(tmp_path))
    assert out.returncode == 0, out.stderr
    assert float(out.stdout.split('reached')[1]) > least, out.stdout


def test_the_readme_lists_every_chapter():
    text = (ROOT/'README.md').read_text(encoding='utf-8')
    for path in CHAPTERS: assert f'nbs/{path.name}' in text, path.name


def test_the_chapters_code_keeps_to_120_columns():
    long = []
    for path in CHAPTERS:
        for i, cell in enumerate(nbformat.read(path, as_version=4).cells):
            lines = cell.source.splitlines() if cell.cell_type == 'code' else []
            long += [f'{path.stem} cell {i}: {line[:60]}' for line in lines if len(line) > 120]
    assert long == []
