"What `import minidl.all` costs and brings along, in fresh processes, minidl compiled as after an installation."
import compileall
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Slow to import, and needed only by some functions, by an extra or by a notebook: they import it themselves.
LATER = ['matplotlib.pyplot', 'matplotlib', 'IPython', 'pandas', 'spacy', 'fastcore', 'nbdev', 'sklearn', 'scipy',
         'fastprogress', 'safetensors', 'torchvision', 'tensorboard', 'torch._dynamo', 'torch._inductor',
         'torch.distributed.fsdp']
ROUNDS = 6   # at most


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    "A folder with a compiled copy of minidl, such as pip leaves behind."
    site = tmp_path_factory.mktemp('site')
    shutil.copytree(ROOT/'minidl', site/'minidl', ignore=shutil.ignore_patterns('__pycache__'))
    assert compileall.compile_dir(site, quiet=1)
    return site


def python(code, site):
    env = {k: v for k, v in os.environ.items() if not k.startswith('PYTHON')} | {'PYTHONPATH': str(site)}
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env, cwd=site, timeout=120)
    assert out.returncode == 0, out.stderr
    return out.stdout.strip()


def seconds(statement, site):
    "Processor seconds that an import takes in a fresh process: they count its own work and not that of its neighbors."
    return float(python('import os\n'
                        'def spent(): return sum(os.times()[:4])   # of this process and of any that it waited for\n'
                        'start = spent()\n'
                        f'{statement}\n'
                        'print(spent() - start)', site))


def test_importing_all_takes_at_most_a_fifth_longer_than_importing_torch(installed):
    times = {'import torch': [], 'import minidl.all': []}
    for i in range(ROUNDS):   # interleaved; the best of each, so more rounds are only needed where neighbors disturb
        for statement in times: times[statement].append(seconds(statement, installed))
        bare, ours = (min(t) for t in times.values())
        if i and ours <= 1.2*bare: break
    assert ours <= 1.2*bare, f'import minidl.all {ours:.2f} s, import torch {bare:.2f} s: {ours/bare:.2f} times as long'


def test_importing_all_leaves_the_slow_packages_for_later(installed):
    code = f'import sys, minidl.all; print(minidl.__file__, [m for m in {LATER!r} if m in sys.modules])'
    assert python(code, installed) == f"{installed/'minidl'/'__init__.py'} []"
