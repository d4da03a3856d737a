"""What the tests of this folder share: processes that can be killed, disks that are full, archives and servers.

Processes are forked from a server that has imported minidl and nothing else, so that they start in a moment."""
import ctypes
import errno
import multiprocessing
import os
import resource
import signal
import sys
import traceback
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minidl.learner import Learner, Recorder, register
from minidl.text import Numericalizer, TextList, Tokenizer, label_for_lm
from minidl.data import SplitData
from minidl.training import get_dls

PATIENCE = 120     # seconds after which something that should have come will not come: a busy machine is no failure

POSIX = pytest.mark.skipif('forkserver' not in multiprocessing.get_all_start_methods(), reason='needs POSIX processes')


# ---- processes

def _context():
    context = multiprocessing.get_context('forkserver')
    # torch._dynamo is what the first step of any optimizer imports
    context.set_forkserver_preload(['minidl.all', 'minidl.text', 'minidl.ulmfit', 'pytest', 'hypothesis',
                                    'safetensors.torch', 'torch._dynamo'])
    return context

def _main(pipe, env, f, args):
    os.environ.update(env)
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)   # whoever starts the tests in the background ignores it
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try: pipe.send(('done', f(pipe, *args)))
    except pytest.skip.Exception as e: pipe.send(('skipped', str(e)))
    except BaseException: pipe.send(('failed', traceback.format_exc()))

class Child:
    """A process that runs `f(pipe, *args)`; what it sends through the pipe is read with `get`, what it returns is
    `result`. It does not outlive the `with` block."""
    def __init__(self, f, *args, env=()):
        self.pipe, theirs = multiprocessing.Pipe()
        self.process = _context().Process(target=_main, args=(theirs, dict(env), f, args))
        self.process.start()
        theirs.close()

    def __enter__(self): return self
    def __exit__(self, *_):
        if self.process.is_alive(): self.process.kill()
        self.process.join(PATIENCE)
        self.pipe.close()

    def get(self):
        "The next thing that the process sends."
        assert self.pipe.poll(PATIENCE), 'nothing came from the process'
        got = self.pipe.recv()
        if isinstance(got, tuple) and got[0] == 'failed': raise AssertionError(got[1])
        if isinstance(got, tuple) and got[0] == 'skipped': pytest.skip(got[1])
        return got

    def send(self, o): self.pipe.send(o)

    def kill(self):
        "kill -9, and wait until it is gone."
        self.process.kill()
        self.join()

    def join(self):
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None, 'the process did not end'
        return self.process.exitcode

    def killed_by(self):
        "The signal that ended the process."
        code = self.join()
        if code >= 0: self.result()     # it tells what happened instead
        assert code < 0, 'the process came to its end'
        return -code

    def result(self):
        "What the function returned; what it sent before is passed over."
        while not isinstance(got := self.get(), tuple): pass
        self.join()
        return got[1]

def in_child(f, *args, env=()):
    "`f(pipe, *args)` in a process of its own."
    with Child(f, *args, env=env) as child: return child.result()


# ---- disks

def full(*args, **kwargs): raise OSError(errno.ENOSPC, 'No space left on device')

def contents(folder, but=('.lock',)):
    "{name: bytes} of all files under a folder, those with the endings `but` left out."
    return {str(p.relative_to(folder)): p.read_bytes()
            for p in sorted(Path(folder).rglob('*')) if p.is_file() and p.suffix not in but}

NEWNS, NEWUSER, RDONLY, REMOUNT, BIND, REC, PRIVATE = 0x20000, 0x10000000, 1, 32, 4096, 16384, 1 << 18

def _mount(what, where, kind, flags, options=''):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(os.fsencode(what), os.fsencode(where), kind.encode(), ctypes.c_ulong(flags), options.encode()):
        pytest.skip(f'no file system may be mounted here ({os.strerror(ctypes.get_errno())})')

def own_mounts():
    "Let what this process mounts be seen by it alone, and be gone with it. To be called in a `Child`."
    if sys.platform != 'linux': pytest.skip('needs Linux')
    libc, uid, gid = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    if libc.unshare(NEWNS) and libc.unshare(NEWNS | NEWUSER):
        pytest.skip(f'no file system may be mounted here ({os.strerror(ctypes.get_errno())})')
    if uid and os.getuid() != uid:      # a user of our own, in which we may mount
        Path('/proc/self/setgroups').write_text('deny')
        Path('/proc/self/uid_map').write_text(f'0 {uid} 1')
        Path('/proc/self/gid_map').write_text(f'0 {gid} 1')
    _mount('none', '/', '', REC | PRIVATE)

def small_disk(folder, size):
    "A file system of `size` at `folder`."
    folder.mkdir(parents=True, exist_ok=True)
    _mount('tmpfs', folder, 'tmpfs', 0, f'size={size}')

def read_only(folder):
    "From now on nothing under `folder` can be written, by root neither."
    _mount(folder, folder, '', BIND)
    _mount(folder, folder, '', BIND | REMOUNT | RDONLY)


# ---- learners and texts

@register
def net_of_faults(n_hidden=8):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, n_hidden), nn.ReLU(), nn.Linear(n_hidden, 3))

def samples(n=18, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.utils.data.TensorDataset(torch.randn(n, 4, generator=g), torch.randint(0, 3, (n,), generator=g))

def small_learner(*cbs, n=18, bs=4, model=None, **kw):
    "5 batches to train on, 2 to validate on; it prints nothing."
    dls = get_dls(samples(n), samples(10, 1), bs=bs)
    kw = dict(loss_func=F.cross_entropy, lr=0.05, cbs=[Recorder(), *cbs], default_cbs=False) | kw
    return Learner(net_of_faults() if model is None else model, dls, **kw)

LONG = ['A rather long text, again. '*40 + f'Number {i}' for i in range(300)]     # enough to be kept in the cache

def plain_tokens(texts=LONG, n_workers=1, **kw): return Tokenizer(n_workers, tok='regex', **kw)(texts)

def language_model(hidden=12):
    "A learner of a language model, not trained."
    from minidl.ulmfit import lm_learner
    texts = [f'film number {i} is ' + 'very '*(i % 7) + 'good' for i in range(40)]
    proc_x = [Tokenizer(tok='regex', cache=False), Numericalizer()]
    dls = label_for_lm(SplitData.split_random(TextList(texts), 0.2), proc_x).to_dls(4, 5)
    torch.manual_seed(0)
    return lm_learner(dls, dict(emb_sz=8, n_hid=hidden, n_layers=2), progress=False, device='cpu')
