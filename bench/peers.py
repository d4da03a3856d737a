"""What other libraries take for the same work, where they are installed (`make peers`, bench/peers.txt).

Each at the quietest setting that it documents: skorch with `callbacks='disable'`, Lightning with
`Trainer(barebones=True)`, fastai under `no_bar()` and `no_logging()`; skorch and fastai keep the loss all the same. The
batches are the same tensors for all of them, no library's own loader is in the way. Lightning and fastai prepare longer
for a fit than 100 small batches take, so their contestants return the seconds of the epoch itself. After any number of
epochs the models of all of them have the same weights as that of the bare loop.

Here are the contestants of learner.py and optim.py, and rows of its own: the step of fastai's AWD-LSTM."""
import argparse
import importlib
import logging
import statistics
import sys
import time
import types
import warnings
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import nn

NAMES = ['fastai', 'lightning', 'skorch', 'torchvision']


def versions():
    "Version of each library that is installed, None for the others."
    def find(name):
        try: return version(name)
        except PackageNotFoundError: return None
    return {name: find(name) for name in NAMES}


@cache
def mend_torchvision():
    """Let a torchvision that was built for CUDA be imported beside a torch that was not.

    Its compiled operations cannot be loaded there, and torchvision 0.28 stumbles when it tells torch the shapes of what
    they return. Here it skips that; nothing in the bench calls them."""
    try: import torchvision  # noqa: F401
    except RuntimeError as e:
        if 'operator torchvision::' not in str(e): raise
        sys.modules['torchvision._meta_registrations'] = types.ModuleType('torchvision._meta_registrations')
    except ImportError: pass


@cache
def load(name):
    "Import a module of a library; None, and one line that says so, where that is not possible."
    mend_torchvision()      # fastai and Lightning import it too
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return importlib.import_module(name)
    except Exception as e: print(f'without {name.split(".")[0]} ({str(e).splitlines()[0]}): `make peers` installs it')


class Batches:
    "Batches as a loader: Lightning takes a list for several loaders."
    def __init__(self, batches): self.batches = batches
    def __len__(self): return len(self.batches)
    def __iter__(self): return iter(self.batches)


def skorch_epoch(model, loss_func, batches, lr):
    skorch = load('skorch')
    if skorch is None: return None
    net = skorch.NeuralNet(lambda: model, criterion=lambda: loss_func, optimizer=torch.optim.SGD, lr=lr, max_epochs=1,
                           train_split=None, iterator_train=lambda ds, **_: batches, callbacks='disable', verbose=0)
    net.initialize()
    return lambda: net.partial_fit(batches)


def lightning_epoch(model, loss_func, batches, lr):
    L = load('lightning.pytorch')
    if L is None: return None
    logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model

        def training_step(self, batch, i): return loss_func(self.model(batch[0]), batch[1])
        def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=lr)
        def on_train_epoch_start(self): self.start = time.perf_counter()
        def on_train_epoch_end(self): self.seconds = time.perf_counter() - self.start

    def epoch():
        module = Module()
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            L.Trainer(max_epochs=1, accelerator='cpu', devices=1, barebones=True).fit(module, Batches(batches))
        return module.seconds
    return epoch


def fastai_epoch(model, loss_func, batches, lr):
    fastai = load('fastai.callback.progress') and load('fastai.basics')
    if fastai is None: return None
    from fastai.data.core import DataLoaders
    from fastai.optimizer import SGD

    class Clock(fastai.Callback):
        order = 1000
        def before_train(self): self.start = time.perf_counter()
        def after_train(self): self.seconds = time.perf_counter() - self.start

    learn = fastai.Learner(DataLoaders(batches, []), model, loss_func, SGD, lr=lr, cbs=Clock())

    def epoch():
        with learn.no_bar(), learn.no_logging(): learn.fit(1)
        return learn.clock.seconds
    return epoch


def epochs(get_model, loss_func, batches, lr=0.01):
    "An epoch over `batches` by each library that is installed, by name."
    made = {'skorch': skorch_epoch, 'Lightning': lightning_epoch, 'fastai': fastai_epoch}
    made = {name: f(get_model(), loss_func, batches, lr) for name, f in made.items()}
    return {name: epoch for name, epoch in made.items() if epoch}


def fastai_adamw(params):
    "fastai's AdamW at the values of `torch.optim.AdamW`; None without fastai."
    optimizer = load('fastai.optimizer')
    return optimizer and optimizer.Adam(params, lr=1e-3, mom=0.9, sqr_mom=0.999, eps=1e-8, wd=0.01)


def fastai_awd_lstm(n_tokens, **sizes):
    "fastai's AWD-LSTM language model with all its dropouts; None without fastai."
    if load('fastai.text.models.awdlstm') is None: return None
    from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_lm_config
    from fastai.text.models.core import get_language_model
    return get_language_model(AWD_LSTM, n_tokens, config={**awd_lstm_lm_config, **sizes})


def rows(rounds=6):
    """(what, ratio to the plain stack of `nn.LSTM`, None)

    minidl and fastai in the same rounds, with all dropouts and without AR and TAR, which in fastai are a callback of
    its Learner. See lstm_step.py for the step, the plain stack and the goals."""
    from lstm_step import BPTT, BS, SIZES, Step, contestants
    theirs = fastai_awd_lstm(**SIZES)
    if theirs is None: return []
    steps, gen, before = contestants(), torch.Generator().manual_seed(0), torch.get_num_threads()
    ours = next(step.model for step in steps.values() if step.reg.alpha)
    steps = {'plain': steps['plain'], 'minidl': Step(ours), 'fastai': Step(theirs)}
    times, names = {name: [] for name in steps}, list(steps)
    try:
        torch.set_num_threads(1)
        for i in range(rounds + 1):
            ids = torch.randint(2, SIZES['n_tokens'], (BS, BPTT+1), generator=gen)
            for name in names[i % 3:] + names[:i % 3]:
                start = time.process_time()
                steps[name](ids[:, :-1], ids[:, 1:])
                times[name].append(time.process_time() - start)
    finally: torch.set_num_threads(before)
    plain = times.pop('plain')[1:]      # the first round warms up
    return [(f'AWD-LSTM step, every dropout, no AR or TAR, {name} / plain nn.LSTM',
             statistics.median(a/b for a, b in zip(ts[1:], plain)), None) for name, ts in times.items()]


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rounds', type=int, default=6)
    for what, value, _ in rows(parser.parse_args().rounds): print(f'{what:72} {value:.3f}  (for reference)')
