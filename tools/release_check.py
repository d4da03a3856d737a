"""Is this fit to be released? Builds an sdist and a wheel, looks at what is in them, and runs the README's example with
the wheel in an environment of its own, which is removed afterwards. Changes nothing in the working folder.

    python tools/release_check.py                             what `make release-check` does
    python tools/release_check.py --tag v0.1.0 --out dist     for a release: the tag must fit, the two files are kept
"""
import argparse
import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
# What only those who develop minidl have: an installation without extras must not need or bring it.
NOT_FOR_USERS = ['nbdev', 'execnb', 'fastcore', 'ipython', 'jupyterlab', 'pytest', 'hypothesis', 'pandas', 'spacy', 'scikit-learn']
ACCURACY = 0.85   # of the README's example on the sample digits (it reaches about 0.9)


def run(*command, cwd=None, **env):
    "What a command prints; if it fails, that ends the check."
    out = subprocess.run([str(c) for c in command], cwd=cwd, env=clean_env() | env, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if out.returncode: sys.exit(f"FAILED: {' '.join(map(str, command))}\n\n{out.stdout}")
    return out.stdout


def clean_env():
    "The environment without what would let Python or minidl look elsewhere."
    return {k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'MINIDL_', 'VIRTUAL_ENV'))}


def demand(ok, sentence):
    if not ok: sys.exit(f'FAILED: {sentence}')


def git(*args): return run('git', *args, cwd=ROOT).split('\0')[:-1]


def copy_source(to):
    "Copy what git knows, or would take with the next `git add`: no leftovers of a build can get in."
    files = [f for f in git('ls-files', '-z', '--cached', '--others', '--exclude-standard') if (ROOT/f).is_file()]
    for f in files:
        (to/f).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT/f, to/f)
    return set(files)


def make_env(folder):
    "A fresh environment; its Python."
    venv.create(folder, with_pip=True, symlinks=os.name != 'nt')
    return folder/('Scripts/python.exe' if os.name == 'nt' else 'bin/python')


def check_versions(source, tag):
    "One version, everywhere."
    text = lambda name: (source/name).read_text(encoding='utf-8')
    cfg = configparser.ConfigParser(delimiters=['='])
    cfg.read_string(text('settings.ini'))
    version = cfg['DEFAULT']['version']
    tree = ast.parse(text('minidl/__init__.py'))
    in_init = next(ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == '__version__')
    demand(in_init == version, f'settings.ini says version {version}, minidl/__init__.py says {in_init}.')
    cited = re.search(r'^version: *["\']?([^"\'\s]+)', text('CITATION.cff'), re.M)
    demand(cited and cited[1] == version, f'CITATION.cff does not say version: {version}.')
    heading = re.search(rf'^## \[{re.escape(version)}\] - (.+)$', text('CHANGELOG.md'), re.M)
    demand(heading, f'CHANGELOG.md has no heading "## [{version}] - ...".')
    if tag:
        demand(tag == f'v{version}', f'the tag is {tag}, the version {version}: the tag should be v{version}.')
        demand(re.fullmatch(r'\d{4}-\d\d-\d\d', heading[1].strip()), f'CHANGELOG.md gives no date for {version}, but "{heading[1]}".')
        demand(not git('status', '--porcelain', '-z'), 'there are changes that are not committed.')
    return version


def check_sdist(path, files):
    "It holds files of the repository and what setuptools adds, whole enough to build from."
    with tarfile.open(path) as tar: inside = {str(PurePosixPath(*PurePosixPath(m.name).parts[1:])) for m in tar if m.isfile()}
    made = {f for f in inside if f in ('PKG-INFO', 'setup.cfg') or f.startswith('minidl.egg-info/')}
    demand(not (junk := inside - made - files), f"the sdist holds what is not in the repository: {', '.join(sorted(junk)[:10])}")
    wanted = {f for f in files if f.startswith(('minidl/', 'nbs/', 'data/', 'tests/', 'tools/'))}
    demand(not (lost := wanted - inside), f"the sdist lacks {', '.join(sorted(lost)[:10])}: see MANIFEST.in.")
    return inside


def check_wheel(path, files):
    "It holds the package with all of its parts and the samples, and nothing beside them."
    with zipfile.ZipFile(path) as z: inside = {n for n in z.namelist() if not n.endswith('/')}
    package = {n for n in inside if n.startswith('minidl/')}
    wanted = {f for f in files if re.fullmatch(r'minidl/.*(\.py|py\.typed)', f)}
    wanted |= {f.replace('data/samples/', 'minidl/samples/', 1) for f in files if f.startswith('data/samples/')}
    demand(not (lost := wanted - package), f"the wheel lacks {', '.join(sorted(lost)[:10])}: see packages and package_data in setup.py.")
    demand(not (junk := package - wanted), f"the wheel holds {', '.join(sorted(junk)[:10])}, which the repository does not.")
    strange = {n for n in inside - package if not re.match(r'minidl-[^/]+\.dist-info/', n)}
    demand(not strange, f"the wheel holds {', '.join(sorted(strange)[:10])} beside the package.")
    return inside


def check_example(python, folder, readme):
    "The README's example, word for word, in an empty folder; deprecated things that it touches are errors."
    code = re.search(r'## In a notebook of your own.*?```python\n(.*?)```', readme, re.S)[1]
    code += '\nimport sys, minidl; print("FROM", minidl.__file__, "PREFIX", sys.prefix)\n'
    (folder/'example.py').write_text(code, encoding='utf-8')
    out = run(python, '-W', 'error::DeprecationWarning', '-W', 'error::FutureWarning', 'example.py', cwd=folder,
              PYTHONNOUSERSITE='1', MINIDL_CACHE=str(folder/'cache'))
    where, prefix = re.search(r'^FROM (.*) PREFIX (.*)$', out, re.M).groups()
    demand(Path(where).is_relative_to(prefix), f'the example used minidl from {where} and not the installed wheel.')
    accuracy = float(re.findall(r"'accuracy': ([\d.]+)", out)[-1])
    demand(accuracy >= ACCURACY, f'the example reached an accuracy of {accuracy:.3f} only:\n{out}')
    return accuracy


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--tag', help='the tag of the release, such as v0.1.0')
    parser.add_argument('--out', type=Path, help='a folder for the sdist and the wheel')
    parser.add_argument('--newest', action='store_true', help='install the newest of everything, not what constraints.txt pins')
    args = parser.parse_args()
    start = last = time.perf_counter()

    def say(sentence):
        nonlocal last
        now = time.perf_counter()
        print(f'{now - last:6.1f} s  {sentence}', flush=True)
        last = now

    with tempfile.TemporaryDirectory(prefix='minidl-release-') as scratch:
        scratch = Path(scratch)
        source, dist, empty = (scratch/n for n in ('source', 'dist', 'empty'))
        for folder in (source, dist, empty): folder.mkdir()
        pins = ['-c', source/'constraints.txt']
        files = copy_source(source)
        changed = len(git('status', '--porcelain', '-z'))
        version = check_versions(source, args.tag)
        say(f'version {version}; {len(files)} files' + (f', {changed} of them changed or new since the last commit' if changed else ''))

        tools = make_env(scratch/'tools')
        run(tools, '-m', 'pip', 'install', '-q', *pins, 'build', 'twine')
        run(tools, '-m', 'build', '--outdir', dist, source)
        sdist, wheel = next(dist.glob('*.tar.gz')), next(dist.glob('*.whl'))
        in_sdist, in_wheel = check_sdist(sdist, files), check_wheel(wheel, files)
        for path, inside in (sdist, in_sdist), (wheel, in_wheel):
            parts = Counter(f.split('/')[0] if '/' in f else 'files' for f in inside)
            say(f'{path.name}: {path.stat().st_size/1e6:.1f} MB, all of it meant to be there: ' + ', '.join(f'{k} {n}' for k, n in sorted(parts.items())))
        run(tools, '-m', 'twine', 'check', '--strict', sdist, wheel)
        say('the metadata is as PyPI wants it')

        python = make_env(scratch/'env')
        run(python, '-m', 'pip', 'install', '-q', *([] if args.newest else pins), wheel)
        run(python, '-m', 'pip', 'check')
        packages = dict(line.lower().split('==', 1) for line in run(python, '-m', 'pip', 'list', '--format=freeze').splitlines() if '==' in line)
        demand(not (extra := set(NOT_FOR_USERS) & set(packages)), f"installing minidl brought {', '.join(sorted(extra))}.")
        say(f"installed in a fresh environment: Python {sys.version.split()[0]}, torch {packages['torch']}, {len(packages)} packages")
        accuracy = check_example(python, empty, (source/'README.md').read_text(encoding='utf-8'))
        say(f"the README's example runs there, and reaches an accuracy of {accuracy:.3f}")

        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            for path in (sdist, wheel): shutil.copy2(path, args.out/path.name)
            say(f'kept {sdist.name} and {wheel.name} in {args.out}/')
    print(f'{time.perf_counter() - start:6.1f} s  in all; the environment is removed')


if __name__ == '__main__': main()
