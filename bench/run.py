"""One table of every number to hold: what was measured, how it compares with plain PyTorch, and what it should reach.

    python bench/run.py [--rounds N] [part ...]

The parts are the files beside this one, and `imports`. What they tell besides their numbers stands below the table."""
import argparse
import compileall
import contextlib
import importlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import minidl

sys.path.insert(0, str(Path(__file__).parent))
import peers  # noqa: E402

PARTS = ['learner', 'optim', 'imports', 'images', 'text', 'peers']
NOT_HERE = 'Not here: all chapters on the samples, two at once, at most 10 minutes (`make test` times each).'


def machine():
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((l.split(':')[1].strip() for l in lines if l.startswith('model name')), platform.processor())
    gpu = f', {torch.cuda.get_device_name()}' if torch.cuda.is_available() else ', no GPU'
    return f'{platform.system()} {platform.machine()}, {model}, {os.cpu_count()} cores{gpu}'


def software():
    found = peers.versions()
    missing = [name for name, version in found.items() if version is None]
    others = [f'{name} {version}' for name, version in found.items() if version]
    ours = [f'Python {platform.python_version()}', f'torch {torch.__version__}', f'minidl {minidl.__version__}']
    return ', '.join(ours + others) + (f"\nNot installed: {', '.join(missing)} (`make peers`)" if missing else '')


def imports(rounds=5):
    """(what, ratio of the best processor times, the most it may be)

    In fresh processes, with minidl compiled as it lies after an installation; tests/test_install.py does the same."""
    timer = ('import os\ndef spent(): return sum(os.times()[:4])\n'
             'start = spent()\nimport {}\nprint(spent() - start)')
    times = {'torch': [], 'minidl.all': []}
    with tempfile.TemporaryDirectory() as site:
        shutil.copytree(Path(minidl.__file__).parent, Path(site)/'minidl', ignore=shutil.ignore_patterns('__pycache__'))
        compileall.compile_dir(site, quiet=1)
        env = {k: v for k, v in os.environ.items() if not k.startswith('PYTHON')} | {'PYTHONPATH': site}
        for _ in range(rounds):
            for module, spent in times.items():
                command = [sys.executable, '-c', timer.format(module)]
                spent.append(float(subprocess.check_output(command, env=env, cwd=site)))
    bare, ours = (min(spent) for spent in times.values())
    print(f'import torch: {bare:.2f} s')
    return [('import minidl.all / import torch, processor time', ours/bare, 1.2)]


def main(parts, rounds):
    print(f'{machine()}\n{software()}\n{NOT_HERE}\n')
    print(f"{'what (ratio of times, smaller is better)':72} {'ratio':>7}  {'at most':>7}")
    table, notes = sys.stdout, io.StringIO()
    peers.mend_torchvision()
    try:
        for part in parts:
            with contextlib.redirect_stdout(notes):
                try:
                    rows = imports if part == 'imports' else importlib.import_module(part).rows
                    for what, value, most in rows(*rounds):
                        goal = '' if most is None else f'{most:.3f}'
                        verdict = '   missed' if goal and value > most else ''
                        print(f'{what:72} {value:7.3f}  {goal:>7}{verdict}'.rstrip(), file=table, flush=True)
                except ImportError as e: print(f'without the rest of {part} ({e})')
    finally: print('\n' + notes.getvalue(), end='')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('parts', nargs='*', default=PARTS, metavar='part', help=f"{', '.join(PARTS)}; by default all")
    parser.add_argument('--rounds', type=int, nargs=1, default=[], help='of every part, instead of its own number')
    args = parser.parse_args()
    main(args.parts, args.rounds)
