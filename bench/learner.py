"""A training batch of a small MLP through the Learner, against the bare PyTorch loop.

784-50-10, batch 64, SGD, one thread. Short rounds of the two take turns, and the median of their paired ratios is what counts: a busy
machine slows both."""
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

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
    learn = Learner(get_model(), DataLoaders(BATCHES), F.cross_entropy, torch.optim.SGD, lr=0.01, cbs=cbs, default_cbs=False, **kwargs)
    return lambda: learn.fit(1)


class Idle(Callback):
    "Overrides no event."


class Busy(Callback):
    "Overrides every event."
for event in EVENTS: setattr(Busy, event, lambda self, learn: None)


def ratio(a, b, rounds=100):
    "Median of the paired ratios of the times of `a` and `b`, taking turns."
    for f in a, b: f(), f()
    ratios = []
    for i in range(rounds):
        times = {}
        for f in (a, b) if i % 2 else (b, a):
            start = time.perf_counter()
            f()
            times[f] = time.perf_counter() - start
        ratios.append(times[a] / times[b])
    return statistics.median(ratios)


def rows(rounds=100):
    "(what, ratio, the most it may be)"
    torch.set_num_threads(1)
    tracking = lambda: learner([SanityCheck(), ToDevice('cpu'), Recorder()], metrics=[accuracy], train_metrics=True)
    return [
        ('MLP batch, nothing tracked, Learner / bare loop', ratio(learner(), bare(), rounds), 1.06),
        ('MLP batch, loss and accuracy tracked, Learner / bare loop', ratio(tracking(), bare_tracking(), rounds), 1.10),
        ('ten callbacks that override no event / none', ratio(learner([Idle() for _ in range(10)]), learner(), rounds), 1.01),
        ('ten callbacks that override every event / none', ratio(learner([Busy() for _ in range(10)]), learner(), rounds), 1.06),
    ]


if __name__ == '__main__':
    for what, value, most in rows(): print(f'{what:60} {value:.3f}  (at most {most})')
