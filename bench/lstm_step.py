"""One training step of an AWD-LSTM language model against a plain tied stack of `nn.LSTM` of the same sizes.

Both carry their state, detached, from batch to batch, have the same weights at the start and the same optimizer.
Short rounds of all contestants take turns, and the median of their paired ratios is what counts: a busy machine slows
all of them. It is one thread's own time that is measured (process_time), or a neighbor would count for more than all
dropouts. The sizes are about half of what a GPU would be given (400 and 1152), so that a step takes a second or two on
a CPU; dropout is a smaller share of larger ones."""
import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

from minidl.awd_lstm import RNNRegularizer, get_language_model, lm_cross_entropy

SIZES = dict(n_tokens=20_000, emb_sz=200, n_hid=600, n_layers=3)
BS, BPTT = 32, 70
MOST = {'every dropout, AR and TAR': 1/0.95, 'like for like': 1.00}


class Plain(nn.Module):
    "The least a language model can be: embedding, LSTM layers, the embedding again as decoder."
    def __init__(self, n_tokens, emb_sz, n_hid, n_layers):
        super().__init__()
        self.emb, self.bias, self.state = nn.Embedding(n_tokens, emb_sz), nn.Parameter(torch.zeros(n_tokens)), None
        sizes = [emb_sz] + [n_hid]*(n_layers-1) + [emb_sz]
        self.rnns = nn.ModuleList([nn.LSTM(i, o, batch_first=True) for i, o in zip(sizes, sizes[1:])])

    def forward(self, ids):
        x, new = self.emb(ids), []
        for i, rnn in enumerate(self.rnns):
            x, hc = rnn(x, None if self.state is None else self.state[i])
            new.append(tuple(t.detach() for t in hc))
        self.state = new
        return F.linear(x, self.emb.weight, self.bias)

    def copy(self, model):
        "Take over the weights of an AWD-LSTM."
        self.emb.weight.data.copy_(model.encoder.embed.emb.weight)
        for mine, rnn in zip(self.rnns, model.encoder.rnns): mine.load_state_dict(rnn.lstm.state_dict())
        return self


class Step:
    "A contestant: a model and its optimizer; called with a batch it makes a step."
    def __init__(self, model, alpha=0., beta=0.):
        self.model, self.reg = model.train(), RNNRegularizer(alpha, beta)
        self.opt = torch.optim.AdamW(model.parameters())

    def __call__(self, xb, yb):
        pred = self.model(xb)
        if isinstance(pred, tuple):
            pred, raw, dropped = pred
            loss = lm_cross_entropy(pred, yb)
            whole = loss + self.reg.penalty(raw, dropped)
        else: whole = loss = F.cross_entropy(pred.flatten(0, 1), yb.flatten())
        self.opt.zero_grad()
        whole.backward()
        self.opt.step()
        return loss.item()


def contestants():
    torch.manual_seed(0)
    awd, none = get_language_model(**SIZES), get_language_model(**SIZES, drop_mult=0.)
    plain = Plain(**SIZES).copy(none)
    return {'plain': Step(plain), 'every dropout, AR and TAR': Step(awd, 2., 1.), 'like for like': Step(none)}


def lstm_step(rounds=12):
    "(what, ratio to the plain stack, the most it may be)"
    before = torch.get_num_threads()
    steps, gen = contestants(), torch.Generator().manual_seed(0)
    times, names = {name: [] for name in steps}, list(steps)
    try:
        torch.set_num_threads(1)
        for i in range(rounds + 1):
            ids = torch.randint(2, SIZES['n_tokens'], (BS, BPTT+1), generator=gen)
            losses = {}
            for name in names[i % 3:] + names[:i % 3]:
                start = time.process_time()
                losses[name] = steps[name](ids[:, :-1], ids[:, 1:])
                times[name].append(time.process_time() - start)
            assert abs(losses['plain'] - losses['like for like']) < 1e-3, losses   # they walk the same way
    finally: torch.set_num_threads(before)
    times = {name: ts[1:] for name, ts in times.items()}   # the first round warms up
    plain = times.pop('plain')
    print(f'plain tied LSTM, {SIZES}, bs {BS}, bptt {BPTT}, 1 thread: {BS*BPTT/statistics.median(plain):,.0f} tokens/s')
    for name, ts in times.items():
        yield f'AWD-LSTM step, {name} / plain nn.LSTM', statistics.median(a/b for a, b in zip(ts, plain)), MOST[name]


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rounds', type=int, default=12)
    for what, ratio, most in lstm_step(parser.parse_args().rounds):
        print(f'{what:60} {ratio:.3f}  (at most {most:.3f})')
