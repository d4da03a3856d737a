"docs/faults.md and the tests of this folder are about the same faults."
import re
from pathlib import Path

HERE = Path(__file__).parent
TABLE = HERE.parent.parent/'docs'/'faults.md'

def names(path): return re.findall(r'^def (test_\w+)', path.read_text(encoding='utf-8'), re.M)

def test_the_table_names_every_test_of_this_folder_in_its_order():
    sections = re.findall(r'^`(test_\w+\.py)`[:.].*?(?=^## |\Z)', TABLE.read_text(encoding='utf-8'), re.M | re.S)
    texts = dict(zip(sections, re.split(r'^`test_\w+\.py`[:.]', TABLE.read_text(encoding='utf-8'), flags=re.M)[1:]))
    assert sorted(texts) == sorted(p.name for p in HERE.glob('test_*.py') if p != Path(__file__))
    for file, text in texts.items():
        assert re.findall(r'\| `(test_\w+)` \|$', text.split('\n## ')[0], re.M) == names(HERE/file), file

def test_the_tests_that_the_table_names_elsewhere_exist():
    found = re.findall(r'\| `(test_\w+\.py)::(test_\w+)` \|$', TABLE.read_text(encoding='utf-8'), re.M)
    assert len(found) > 10
    for file, name in found: assert name in names(HERE.parent/file), f'{file}::{name}'

def test_every_row_of_the_table_is_whole():
    rows = [r for r in TABLE.read_text(encoding='utf-8').splitlines() if r.startswith('|')]
    assert len(rows) > 60 and all(r.count('|') == 4 for r in rows)
