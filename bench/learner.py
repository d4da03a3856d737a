"""A training batch of a small MLP through the Learner, against the bare PyTorch loop.

    python bench/learner.py [--rounds N]

784-50-10, batch 64, SGD, one thread. Short rounds of all contestants take turns, and the median of their paired ratios
is what counts: a busy machine slows all of them. The libraries of peers.py take part where they are installed."""
import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

import peers
from minidl.learner import EVENTS, Callback, DataLoaders, Learner, Recorder, SanityCheck, ToDevice
from minidl.training import accuracy

BATCHES = [(torch.randn(64, 784), torch.randint(0, 10, (64,))) for _ in range(100)]


def get_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10))


def bare():
    "The loop with nothing tracked."
    model = get_model()
    opt = torch.optim.SGD(model.parameters(), lr=0.01)

    def epoch():
        model.train()
        for xb, yb in BATCHES:
            loss = F.cross_entropy(model(xb), yb)
            opt.zero_grad()
            loss.backward()
            opt.step()
    return epoch


def bare_tracking():
    "The loop that tracks the loss and the accuracy, weighted by samples."
    model = get_model()
    opt = torch.optim.SGD(model.parameters(), lr=0.01)

    def epoch():
        model.train()
        losses, total_acc, n = [], 0., 0
        for xb, yb in BATCHES:
            pred = model(xb)
            loss = F.cross_entropy(pred, yb)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.detach())
            total_acc = total_acc + accuracy(pred.detach(), yb) * len(yb)
            n += len(yb)
        return torch.stack(losses).mean().item(), (total_acc / n).item()
    return epoch


def learner(cbs=(), **kwargs):
    "The same through a Learner; what is timed is one fit of one epoch."
    learn = Learner(get_model(), DataLoaders(BATCHES), F.cross_entropy, torch.optim.SGD, lr=0.01, cbs=cbs,
                    default_cbs=False, **kwargs)
    return lambda: learn.fit(1)


class Idle(Callback):
    "Overrides no event."


class Busy(Callback):
    "Overrides every event."
for event in EVENTS: setattr(Busy, event, lambda self, learn: None)


def seconds(epoch):
    "Seconds of an epoch: what it returns if that is a number (it timed itself), otherwise what the call took."
    start = time.perf_counter()
    took = epoch()
    return took if isinstance(took, float) else time.perf_counter() - start


def ratios(base, others, rounds):
    "Median of the paired ratios of the times of `others`, by name, to that of `base`, all taking turns."
    epochs = {None: base, **others}
    times, names = {name: [] for name in epochs}, list(epochs)
    for epoch in epochs.values(): epoch(), epoch()
    for i in range(rounds):
        start = i % len(names)
        for name in names[start:] + names[:start]: times[name].append(seconds(epochs[name]))
    return {name: statistics.median(a/b for a, b in zip(times[name], times[None])) for name in others}


def rows(rounds=100):
    "(what, ratio, the most it may be or None)"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    tracked = learner([SanityCheck(), ToDevice('cpu'), Recorder()], metrics=[accuracy], train_metrics=True)
    idle, busy = (learner([cb() for _ in range(10)]) for cb in (Idle, Busy))
    try:
        plain = ratios(bare(), {'Learner': learner(), **peers.epochs(get_model, F.cross_entropy, BATCHES)}, rounds)
        for name, value in plain.items():
            if name == 'Learner': yield 'MLP batch, nothing tracked, Learner / bare loop', value, 1.06
            else: yield f'MLP batch, {name} at its quietest / bare loop', value, None
        value, = ratios(bare_tracking(), {'Learner': tracked}, rounds).values()
        yield 'MLP batch, loss and accuracy tracked, Learner / bare loop', value, 1.10
        tens = ratios(learner(), {'idle': idle, 'busy': busy}, rounds)
        yield 'ten callbacks that override no event / none', tens['idle'], 1.01
        yield 'ten callbacks that override every event / none', tens['busy'], 1.06
    finally: torch.set_num_threads(before)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rounds', type=int, default=100)
    for what, value, most in rows(parser.parse_args().rounds):
        print(f'{what:60} {value:.3f}' + (f'  (at most {most})' if most else '  (for reference)'), flush=True)
