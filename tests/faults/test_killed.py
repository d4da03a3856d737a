"""kill -9 and Ctrl-C, in real processes: what was being written is whole or not there, what was under way can go on,
and no process is left behind."""
import gc
import multiprocessing
import os
import resource
import select
import signal
import threading

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

from faults_common import LONG, POSIX, PATIENCE, Child, contents, in_child, small_learner, net_of_faults
from minidl import datasets
from minidl.data import register_tfm
from minidl.datasets import Source, download, get_data
from minidl.learner import EMA, Callback, Checkpoint, Learner, Recorder, read_checkpoint, read_tensors
from minidl.text import Tokenizer
from minidl.training import get_dls
from test_datasets import MD5, Server, tgz
from test_resume import assert_same_run, assert_same_weights, make

pytestmark = POSIX


# ---- checkpoints

N_EPOCHS = 4

def learner(*more): return make(EMA(0.8), *more)

def die(): os.kill(os.getpid(), signal.SIGKILL)

def arm(moment, n_bytes):
    "Have this process killed at a moment of its next write."
    if moment == 'in the midst of the file':   # the kernel kills who writes more than is allowed, if nothing catches it
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return
    fsync, replace, unlink = os.fsync, os.replace, os.unlink
    def around(f, before):
        def call(*args, **kwargs):
            if before: die()
            f(*args, **kwargs)
            die()
        return call
    if 'fsync' in moment: os.fsync = around(fsync, 'before' in moment)
    if 'rename' in moment: os.replace = around(replace, 'before' in moment)
    if 'removed' in moment: os.unlink = around(unlink, 'before' in moment)

def fit_until_killed(pipe, folder, moment, n_bytes):
    class Arm(Callback):
        order = 89      # right before Checkpoint
        def after_batch(self, learn):
            if learn.training and learn.iter == 2: arm(moment, n_bytes)
    resume = folder if list(folder.glob('*.ckpt')) else None
    learner(Checkpoint(folder, every=1), Arm()).fit(None if resume else N_EPOCHS, resume=resume)

def go_on(pipe, folder, n_epochs):
    for p in folder.glob('*.part'): os.utime(p, (0, 0))     # what a killed process left, long ago
    assert_same_run(learner().fit(n_epochs), learner(Checkpoint(folder, every=1)).fit(resume=folder))
    assert not list(folder.glob('*.part'))

MOMENTS = [('in the midst of the file', 1_000), ('in the midst of the file', 30_000), ('before fsync', 0),
           ('after fsync', 0),
           ('before the rename', 0), ('after the rename', 0), ('before the old one is removed', 0),
           ('after the old one is removed', 0)]

def test_a_run_killed_at_every_moment_of_writing_a_checkpoint_ends_with_the_same_bits(tmp_path):
    at = (0, 0)
    for moment, n_bytes in MOMENTS:
        with Child(fit_until_killed, tmp_path, moment, n_bytes) as child:
            assert child.killed_by() == (signal.SIGXFSZ if n_bytes else signal.SIGKILL), moment
        found = [read_checkpoint(p) for p in tmp_path.glob('*.ckpt')]       # each of them is whole
        assert len(found) == (2 if moment in ('after the rename', 'before the old one is removed') else 1), moment
        before, at = at, max((s['epoch'], s['batch']) for s in found)
        state = read_checkpoint(tmp_path)
        assert (state['epoch'], state['batch']) == at >= before
    in_child(go_on, tmp_path, N_EPOCHS)

def fit_and_tell(pipe, folder):
    class Tell(Callback):
        order = 91      # right after Checkpoint
        def after_batch(self, learn):
            if learn.training: pipe.send(learn.iter)
    resume = folder if list(folder.glob('*.ckpt')) else None
    learner(Checkpoint(folder, every=1), Tell()).fit(None if resume else 8, resume=resume)

def test_a_run_killed_from_outside_again_and_again_ends_with_the_same_bits(tmp_path):
    for n in 1, 2, 5, 3, 4:
        with Child(fit_and_tell, tmp_path) as child:
            for _ in range(n): child.get()
            child.kill()
        for p in tmp_path.glob('*.ckpt'): read_checkpoint(p)
        for p in tmp_path.glob('*.safetensors'): read_tensors(p)
    in_child(go_on, tmp_path, 8)

def save_until_killed(pipe, path, moment, n_bytes):
    learn = small_learner(model=net_of_faults(2000))
    arm(moment, n_bytes)
    learn.save(path)

@pytest.mark.parametrize('moment, n_bytes', [('in the midst of the file', 20_000), ('before the rename', 0)])
def test_a_process_killed_while_it_saves_leaves_the_old_weights(moment, n_bytes, tmp_path):
    old = small_learner(model=net_of_faults(2000))
    for p in old.model.parameters(): p.data += 1
    old.save(tmp_path/'m.safetensors')
    with Child(save_until_killed, tmp_path/'m.safetensors', moment, n_bytes) as child: child.killed_by()
    assert_same_weights(small_learner(model=net_of_faults(2000)).load(tmp_path/'m.safetensors'), old)


# ---- downloads

BLOB = bytes(i*i % 251 for i in range(1 << 20))     # four blocks of reading

class Held(Server):
    "Sends the next `give` bytes of an answer and then says no more."
    give = 1 << 30
    def answer(self, h):
        rng = h.headers.get('Range')
        self.requests.append((h.path, rng))
        body, start = self.files[h.path[1:]], int(rng[6:-1]) if rng else 0
        h.send_response(206 if start else 200)
        if start: h.send_header('Content-Range', f'bytes {start}-{len(body)-1}/{len(body)}')
        h.send_header('Content-Length', str(len(body) - start))
        h.end_headers()
        try: h.wfile.write(body[start:start + self.give])
        except OSError: return
        if self.give < len(body) - start: self.released.wait(PATIENCE)

def fetch(pipe, url, dest):
    download(url, dest, len(BLOB), MD5(BLOB), timeout=PATIENCE, bar=lambda have, total: pipe and pipe.send(have))

def test_a_download_killed_again_and_again_is_resumed_and_whole(tmp_path):
    dest, have = tmp_path/'in'/'blob', [0]
    dest.parent.mkdir()
    with Held(dict(blob=BLOB)) as server:
        server.give = 300_000
        for _ in range(3):
            with Child(fetch, server.url + 'blob', dest) as child:
                child.get()
                child.kill()
            have.append((dest.parent/'blob.part').stat().st_size)
            assert not dest.exists() and BLOB.startswith((dest.parent/'blob.part').read_bytes())
        server.give = 1 << 30
        fetch(None, server.url + 'blob', dest)
        assert have == sorted(set(have)) and server.requests[-1][1] == f'bytes={have[-1]}-'
    assert contents(tmp_path/'in') == {'blob': BLOB}

def toy(cache, mirror, size, md5):
    "A public data set called toy, in this process; returns the environment in which `get_data` looks for it."
    datasets.SOURCES['toy'] = Source('unset', {'toy-160.tgz': (size, md5)}, 'images', '')
    return dict(MINIDL_DATA='full', MINIDL_CACHE=str(cache), MINIDL_MIRROR=mirror)

def get_toy(pipe, at, *how):
    os.environ.update(toy(*how))
    if at == 'download': datasets._bar = lambda name: lambda have, total: die()
    if at == 'extract': datasets.tarfile.TarFile.chmod = lambda *args, **kwargs: die()
    if at == 'rename':
        datasets.os.replace = lambda a, b, real=os.replace: real(a, b) if str(a).endswith('.tgz.part') else die()
    get_data('toy')

def test_data_killed_on_its_way_is_not_there_and_comes_with_the_next_call(tmp_path, monkeypatch):
    cache = tmp_path/'cache'
    archive = tgz('toy-160', {f'train/a/{i}.jpg': os.urandom(2000) for i in range(400)})
    monkeypatch.setitem(datasets.SOURCES, 'toy', None)
    with Held({'toy-160.tgz': archive}) as server:
        how = cache, server.url, len(archive), MD5(archive)
        for at in 'download', 'extract', 'rename':
            with Child(get_toy, at, *how) as child: child.killed_by()
            assert not (cache/'full'/'toy').exists(), at
        for k, v in toy(*how).items(): monkeypatch.setenv(k, v)
        path = get_data('toy')
        assert any(rng for _, rng in server.requests)       # the download was resumed
    assert len(list(path.rglob('*.jpg'))) == 400
    assert sorted(p.name for p in path.parent.iterdir()) == ['toy', 'toy.lock']


# ---- tokenizing with workers

REPORT = None       # the pipe to report to, in a process that is to be killed

@register_tfm
def wait_for_the_end(t):
    "A rule that does not come back, where there is someone to report to."
    if REPORT and multiprocessing.parent_process():
        REPORT.send(os.getpid())
        signal.pause()
    return t

def tokenize(pipe, at, texts):
    global REPORT
    if at == 'work': REPORT = pipe
    if at == 'midst of the file': arm('in the midst of the file', 50_000)
    if at == 'rename': arm('before the rename', 0)
    Tokenizer(2, tok='regex', pre_rules=[wait_for_the_end])(texts)

@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MINIDL_CACHE', str(tmp_path/'cache'))
    return tmp_path/'cache'

@pytest.mark.skipif(not hasattr(os, 'pidfd_open'), reason='needs pidfd')
@pytest.mark.parametrize('at', ['work', 'midst of the file', 'rename'])
def test_killed_while_tokenizing_there_is_no_half_cache_and_no_orphan(at, cache):
    with Child(tokenize, at, LONG, env=dict(MINIDL_CACHE=str(cache))) as child:
        fds = [os.pidfd_open(child.get()) for _ in range(2)] if at == 'work' else []
        if at == 'work': child.kill()
        child.killed_by()
    for fd in fds:
        assert select.select([fd], [], [], PATIENCE)[0], 'a worker lives on'
        os.close(fd)
    assert not list(cache.rglob('*.safetensors')) or at == 'rename'     # there the file has a name of its own
    tok = Tokenizer(tok='regex', pre_rules=[wait_for_the_end])
    tokens = tok(LONG)
    assert tokens == Tokenizer(tok='regex', pre_rules=[], cache=False)(LONG) and tok(LONG) == tokens


def tokenize_and_end(pipe): return len(Tokenizer(2, tok='regex', cache=False)(LONG))

def test_a_process_that_tokenized_with_workers_comes_to_its_end():
    with Child(tokenize_and_end) as child:
        assert child.result() == len(LONG) and child.process.exitcode == 0


# ---- Ctrl-C

class Slow(TensorDataset):
    "Items that tell that they were fetched."
    def __getitem__(self, i): return super().__getitem__(i)

def interrupted_fit(pipe, num_workers):
    os.setsid()     # a group of our own, as a terminal's
    ended, stop = [], threading.Event()
    class Tell(Callback):
        def after_batch(self, learn):
            if learn.training and learn.iter == 1 and not ended:
                pipe.send(os.getpid())
                stop.wait(PATIENCE)     # Ctrl-C comes now
        def after_fit(self, learn): ended.append(learn.epoch)
    g = torch.Generator().manual_seed(0)
    ds = Slow(torch.randn(24, 4, generator=g), torch.randint(0, 3, (24,), generator=g))
    learn = Learner(net_of_faults(), get_dls(ds, bs=4, num_workers=num_workers), F.cross_entropy,
                    cbs=[Recorder(), Tell()], default_cbs=False)
    try: learn.fit(2)
    except KeyboardInterrupt as e: notes = e.__notes__
    assert notes == ['in training, epoch 0, batch 1'] and ended == [0] and not learn.fitting and learn.xb is None
    learn.fit(1)
    assert len(ended) == 2 and len(learn.recorder.losses) == 6
    gc.collect()
    assert not multiprocessing.active_children()

@pytest.mark.parametrize('num_workers', [0, 1])
def test_ctrl_c_in_a_fit_runs_after_fit_leaves_a_learner_that_goes_on_and_no_worker(num_workers):
    with Child(interrupted_fit, num_workers) as child:
        os.killpg(child.get(), signal.SIGINT)       # as a terminal does: everybody in the group hears it
        child.result()
