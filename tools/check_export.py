"Is minidl/ exactly what nbs/ exports, and are the notebooks clean? Works on a copy; changes nothing."
import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
BY_HAND = {'__init__.py', 'all.py', 'py.typed'}


def main():
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)/'minidl'   # nbdev notes the folder's name in _modidx.py
        copy.mkdir()
        skip = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints')
        for name in 'nbs', 'minidl': shutil.copytree(ROOT/name, copy/name, ignore=skip)
        for name in 'settings.ini', 'setup.py', 'pyproject.toml', 'README.md': shutil.copy(ROOT/name, copy/name)
        generated = {p.name for p in (ROOT/'minidl').glob('*.py')} - BY_HAND
        for name in generated: (copy/'minidl'/name).unlink()
        subprocess.run(['git', 'init', '-q', '.'], cwd=copy, check=True)
        for command in 'nbdev_export', 'nbdev_clean': subprocess.run([str(BIN/command)], cwd=copy, check=True)

        exported = {p.name for p in (copy/'minidl').glob('*.py')} - BY_HAND
        stale = sorted(n for n in generated | exported
                       if not all((r/'minidl'/n).exists() for r in (ROOT, copy)) or not filecmp.cmp(ROOT/'minidl'/n, copy/'minidl'/n, shallow=False))
        dirty = sorted(p.name for p in (ROOT/'nbs').glob('*.ipynb') if not filecmp.cmp(p, copy/'nbs'/p.name, shallow=False))
    if stale: print(f"minidl/ is not what nbs/ exports: {', '.join(stale)}. Run nbdev_export.")
    if dirty: print(f"notebooks that are not clean: {', '.join(dirty)}. Run nbdev_clean.")
    if stale or dirty: sys.exit(1)
    print(f'minidl/ is what nbs/ exports ({len(exported)} modules), and the notebooks are clean')


if __name__ == '__main__': main()
