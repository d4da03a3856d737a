"Two processes that do the same thing at once, from one starting line: both are right, and no file is a mixture of two."
import os
from pathlib import Path

import pytest

from faults_common import LONG, PATIENCE, POSIX, Child, _context, contents, plain_tokens, small_learner
from minidl.datasets import get_data
from minidl.learner import Checkpoint, read_checkpoint, read_tensors, write_atomic
from minidl.text import Tokenizer, _make_room
from test_datasets import tgz

pytestmark = POSIX

def both(f, *args, env=(), n=2):
    "What `f(pipe, start, which, *args)` returned in `n` processes; `start.wait()` lets all of them go on together."
    start = _context().Barrier(n)
    children = [Child(f, start, i, *args, env=env) for i in range(n)]
    try: return [c.result() for c in children]
    finally:
        for c in children: c.__exit__()

def get_mine(pipe, start, which):
    start.wait(PATIENCE)
    return sorted((p.name, len(p.read_bytes())) for p in get_data('mine').rglob('*.jpg'))

def test_one_archive_is_extracted_once_for_three_who_ask(tmp_path):
    files = {f'a/{i}.jpg': bytes(i + 1) for i in range(400)}
    (tmp_path/'mine.tgz').write_bytes(tgz('mine', files))
    found = both(get_mine, env=dict(MINIDL_DATA=str(tmp_path), MINIDL_CACHE=str(tmp_path/'cache')), n=3)
    assert found == [sorted((Path(n).name, len(b)) for n, b in files.items())]*3
    assert len([p for p in (tmp_path/'cache'/'extracted').iterdir() if p.is_dir()]) == 1

def tokens(pipe, start, which, n_workers):
    start.wait(PATIENCE)
    tok = Tokenizer(n_workers, tok='regex')
    found = [list(o) for o in tok(LONG[:250])]
    tok.close()
    return found

@pytest.mark.parametrize('n_workers', [1, 2])
def test_tokens_are_right_for_two_who_tokenize_the_same_texts(n_workers, tmp_path):
    env = dict(MINIDL_CACHE=str(tmp_path))
    first, second = both(tokens, n_workers, env=env)
    assert first == second == [list(o) for o in plain_tokens(LONG[:250], cache=False)]
    kept, = (tmp_path/'tokens').iterdir()       # one file, and no temporary one
    assert read_tensors(kept)[1]['table']

def make_room(pipe, start, which, folder):
    start.wait(PATIENCE)
    for keep in 3000, 1000: _make_room(folder, keep)

def test_two_who_make_room_in_the_cache_of_tokens_keep_the_newest(tmp_path):
    for i in range(400):
        (tmp_path/f'{i}.safetensors').write_bytes(bytes(10))
        os.utime(tmp_path/f'{i}.safetensors', (i, i))
    both(make_room, tmp_path, n=3)
    assert {p.name for p in tmp_path.iterdir()} == {f'{i}.safetensors' for i in range(300, 400)}

def write_slowly(pipe, path, first, second):
    "Writes the second half when told so."
    def write(part):
        with open(part, 'wb', buffering=0) as f:
            f.write(first)
            pipe.send('half')
            pipe.recv()
            f.write(second)
    write_atomic(path, write)

def test_a_file_that_two_processes_write_is_that_of_one_of_them(tmp_path):
    with Child(write_slowly, tmp_path/'m', b'a'*1000, b'a'*1000) as slow:
        assert slow.get() == 'half'
        write_atomic(tmp_path/'m', lambda part: Path(part).write_bytes(b'b'*3000))
        assert (tmp_path/'m').read_bytes() == b'b'*3000
        slow.send('go on')
        slow.result()
    assert contents(tmp_path) == {'m': b'a'*2000}

def fit(pipe, start, which, folder):
    learn = small_learner(Checkpoint(folder, every=1), n=200)
    start.wait(PATIENCE)
    learn.fit(4)
    return learn.recorder.losses

def test_two_runs_in_one_folder_both_end_and_leave_a_whole_checkpoint(tmp_path):
    first, second = both(fit, tmp_path)
    assert first == second
    for p in tmp_path.glob('*.ckpt'): assert read_checkpoint(p)['epoch'] <= 4
    assert small_learner(Checkpoint(tmp_path), n=200).fit(resume=tmp_path).recorder.losses[:len(first)] == first
    assert not list(tmp_path.glob('*.part'))
