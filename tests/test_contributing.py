"What is written for those who carry on: the example runs, the commands exist, the version is the same everywhere."
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import minidl
from minidl import learner

ROOT = Path(__file__).resolve().parent.parent
DOCS = ['README.md', 'CONTRIBUTING.md']
WORKFLOWS = sorted((ROOT/'.github'/'workflows').glob('*.yml'))


def text(name): return (ROOT/name).read_text(encoding='utf-8')
def targets(): return set(re.findall(r'^([a-z][a-z-]*):', text('Makefile'), re.M))


def test_the_callback_of_contributing_runs_and_so_does_its_test(capsys):
    space = dict(vars(learner))   # the cell stands in that chapter
    for block in re.findall(r'```python\n(.*?)```', text('CONTRIBUTING.md'), re.S): exec(block, space)
    tests = [f for name, f in space.items() if name.startswith('test_')]
    assert len(tests) == 1
    tests[0]()


@pytest.mark.parametrize('name', DOCS)
def test_every_make_target_that_is_named_exists(name):
    code = '\n'.join(re.findall(r'`[^`\n]+`|```sh\n.*?```', text(name), re.S))
    named = set(re.findall(r'\bmake ([a-z][a-z-]*)', code))
    assert named and named <= targets()


@pytest.mark.parametrize('name', DOCS)
def test_every_file_that_is_linked_exists(name):
    links = re.findall(r'\]\(([^)#:]+)\)', text(name))
    assert [link for link in links if not (ROOT/link).exists()] == []


@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_is_yaml_with_bounds_and_uses_make_targets_that_exist(path):
    flow = yaml.safe_load(path.read_text(encoding='utf-8'))
    assert flow['permissions'] == {'contents': 'read'}
    for job in flow['jobs'].values():
        if 'uses' in job: continue   # another workflow
        assert job['timeout-minutes'] <= 60
        for step in job['steps']:
            named = set(re.findall(r'\bmake ([a-z][a-z-]*)', step.get('run', '')))
            assert named <= targets()


def test_the_hooks_are_nbdevs_and_come_from_the_environment():
    repo, = yaml.safe_load(text('.pre-commit-config.yaml'))['repos']
    assert [h['id'] for h in repo['hooks']] == ['nbdev_clean', 'nbdev_export']
    assert all(h['entry'] == f".venv/bin/{h['id']}" for h in repo['hooks'])


def test_citation_and_changelog_know_the_version():
    cff = yaml.safe_load(text('CITATION.cff'))
    assert str(cff['version']) == minidl.__version__
    assert f'\n## [{minidl.__version__}] - ' in text('CHANGELOG.md')


@pytest.mark.skipif(shutil.which('make') is None, reason='make is not installed')
def test_make_help_lists_every_target_that_is_meant_for_people():
    out = subprocess.run(['make', 'help', f'PYTHON={sys.executable}'], cwd=ROOT, capture_output=True, text=True).stdout
    assert targets() == set(re.findall(r'^make ([a-z-]+) ', out, re.M))
