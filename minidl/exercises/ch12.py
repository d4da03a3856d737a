"Checks of the exercises of chapter 12."
import math

import torch
import torch.nn.functional as F
from torch import nn

from .core import Wrong, exercise, expect, raises, same


@exercise('12.1', hints=[
    'Sort the probabilities from large to small, and look at their running sum. Is a token needed? That depends on '
    'what those *before* it add up to.',
    'The decision was made in sorted order, and the logits are in theirs: `sort` also gives the places, and `scatter` '
    'brings a mask back.'])
def nucleus(f):
    "The logits of the likeliest tokens, which together have a probability of p."
    def case(logits, p, keep, what):
        got, keep = f(logits, p), torch.tensor(keep).bool()
        if isinstance(got, torch.Tensor) and got.shape == logits.shape and ((got > -math.inf) != keep).any():
            raise Wrong(f'{what}: of {keep.numel()} logits {(got > -math.inf).sum()} are left, and the others -inf; '
                        'these are too many, too few, or not the right ones')
        return same(got, logits.masked_fill(~keep, -math.inf), what)
    lows = torch.tensor([0.05, 0.4, 0.1, 0.3, 0.15]).log() + 2
    yield case(lows, 0.6, [0, 1, 0, 1, 0], 'two tokens')
    yield case(lows, 0.8, [0, 1, 0, 1, 1], 'a token that only a part of is needed')
    yield case(lows, 0.01, [0, 1, 0, 0, 0], 'a small p')
    yield case(lows, 1., [1, 1, 1, 1, 1], 'p of 1')
    batch = torch.stack([lows, 30*lows, 0.01*lows, lows.flip(0)]).view(2, 2, 5)
    keep = [[[0, 1, 0, 1, 1], [0, 1, 0, 0, 0]], [[0, 1, 1, 1, 1], [1, 1, 0, 1, 0]]]
    yield case(batch, 0.79, keep, 'each row for itself')
    yield case(1000*lows.double(), 0.9, [0, 1, 0, 0, 0], 'large logits, float64')
    some = torch.randn(50)
    some[[0, 1]] = -math.inf
    got = f(some, 0.999)
    yield expect(torch.equal(got[:2], some[:2]) and not got.isnan().any(), 'tokens that were impossible before',
                 'what was -inf before should be -inf, and nothing should be NaN')
    for p in 0., 1.5: yield raises(ValueError, f, lows, p, what=f'p={p}')


@exercise('12.2', hints=[
    'Three cases, in this order: the same token; tokens that are the same in lower case; neither.',
    'One pass over the old tokens collects, for each spelling in lower case, the places of all that have it.',
    'In lower case on both sides: the new token may have capitals, too.'])
def take_cased(f):
    "Rows for a new vocabulary, from an old one that knows capitals."
    def case(old, new, places, what, shape=(3,), dtype=torch.float32):
        rows = torch.randn(len(old), *shape, dtype=dtype)
        want = [rows[i].mean(0) if i else rows.mean(0) for i in places]
        return same(f(rows, old, new), torch.stack(want), what)
    yield case(['xxunk', 'film', 'good'], ['good', 'xxunk', 'film'], [[2], [0], [1]], 'tokens that both know')
    yield case(['xxunk', 'film', 'good'], ['bad', 'film'], [[], [1]], 'a token without any likeness')
    yield case(['xxunk', 'Paris', 'the', 'Texas'], ['the', 'paris', 'texas'], [[2], [1], [3]], 'one in capitals')
    yield case(['The', 'THE', 'a', 'tHE', 'I'], ['the', 'a'], [[0, 1, 3], [2]], 'several of them')
    yield case(['us', 'US', 'it', 'Us'], ['us', 'it'], [[0], [2]], 'the same token, and others in capitals')
    yield case(['us', 'Us', 'it'], ['US', 'It', 'IT', 'Us'], [[0, 1], [2], [2], [1]], 'new tokens in capitals')
    yield case(['a', 'B', 'b', 'C'], ['c', 'z', 'b', 'A'], [[3], [], [2], [0]], 'a bias', shape=())
    yield case(['a', 'B'], ['b', 'c'], [[1], []], 'float64', shape=(2, 2), dtype=torch.float64)


@exercise('12.3', hints=[
    'A piece of `bptt` tokens predicts `bptt` tokens, the last of which is the first of the next piece. `encode` takes '
    'a state and gives one.',
    'Add up the losses of all tokens, and divide once, at the end.',
    'Dropout must be off while you read, and afterwards as it was. And nothing is to be remembered for a backward '
    'pass.'])
def perplexity_of(f):
    "The perplexity of one text, read in pieces."
    from ..awd_lstm import get_language_model
    model = get_language_model(30, 6, 7, 2)
    with torch.no_grad():
        for p in model.parameters(): p.mul_(12)                       # so that it is surprised, and remembers
    def exact(ids):
        with torch.no_grad(): logits = model.decoder(model.encoder.encode(ids[None, :-1])[0])[0][0]
        return F.cross_entropy(logits, ids[1:]).exp().item()
    widths, grads = [], []
    def note(module, args, out):
        widths.append(args[0].shape[-2])
        grads.append(torch.is_grad_enabled())
    def case(n, bptt, what):
        ids = torch.randint(2, 30, (n,))
        model.eval()
        want = exact(ids)
        del widths[:], grads[:]
        return same(f(model, ids, bptt), want, what, tol=1e-3)
    hook = model.decoder.register_forward_hook(note)
    try:
        yield case(12, 40, 'a text of one piece')
        yield case(13, 4, 'of three')
        yield case(24, 7, 'a last piece that is shorter')
        yield case(22, 7, 'and no last piece')
        yield case(2, 7, 'two tokens')
        yield case(40, 1, 'one token at a time')
        case(41, 8, '')
        yield expect(widths and max(widths) <= 8, 'no more than bptt tokens at once',
                     f'with bptt=8 the decoder is called with {max(widths, default=0)} tokens at once')
        yield expect(not any(grads), 'no memory for gradients', 'gradients are kept, and nobody asks for them')
        ids = torch.randint(2, 30, (20,))
        model.eval()
        want = exact(ids)
        state = model.encoder.state = [tuple(torch.randn(1, 3, n) for _ in 'hc') for n in (7, 6)]
        yield same(f(model, ids, 6), want, 'a model that has read something else', tol=1e-3)
        yield expect(model.encoder.state is state, 'and remembers it',
                     "the model's own state is not what it was before")
        model.train()
        yield same(f(model, ids, 6), want, 'a model in training', tol=1e-3)
        yield expect(all(m.training for m in model.modules()), 'which stays in training',
                     'afterwards the model is in evaluation')
        model.eval()
        f(model, ids, 6)
        yield expect(not any(m.training for m in model.modules()), 'or in evaluation',
                     'afterwards the model is in training')
        yield raises(ValueError, f, model, ids[:1], 6, what='a text of one token')
    finally: hook.remove()


@exercise('12.4', hints=[
    'Three notes on a text are enough: the sum of weights, the sum of weighted outputs, and what keeps both finite.',
    'A softmax stays what it is if all scores lose the same number: the largest so far. When a piece brings a larger '
    'one, the two sums have to be scaled to it.',
    'Scores behind `real` become -inf before anything else, so that their weight is 0. And nothing has been read at '
    'first: which number is below every score?'])
def AttentionHead(f):
    "A head that attends to all tokens of a text, piece by piece."
    for name in 'blank', 'take', 'forward':
        if not callable(getattr(f, name, None)): raise Wrong(f'it has no method `{name}`')
    def made(emb_sz=5, n_classes=3):
        head = f(emb_sz, n_classes)
        if not isinstance(head, nn.Module): raise Wrong('it should be an nn.Module')
        for name, size in ('score', (1, emb_sz)), ('out', (n_classes, emb_sz)):
            layer = getattr(head, name, None)
            if not isinstance(layer, nn.Linear) or layer.weight.shape != size:
                raise Wrong(f'`{name}` should be an nn.Linear from {size[1]} to {size[0]}')
        return head
    def exact(head, out, lengths):
        pooled = []
        for row, n in zip(out, lengths.tolist()):
            pooled.append(head.score(row[:n]).softmax(0).T @ row[:n])
        return head.out(torch.cat(pooled))
    def read(head, out, lengths, bptt):
        notes = head.blank(len(out), torch.zeros(len(out), 1, dtype=torch.int64))
        for a in range(0, int(lengths.max()), bptt):
            n = int((lengths > a).sum())
            notes = head.take(notes, out[:n, a:a + bptt], (lengths[:n] - a).clamp(max=bptt))
            if not isinstance(notes, (list, tuple)) or any(len(o) != len(out) for o in notes):
                raise Wrong('`take` should give a list of tensors with an entry for each text')
        return head(notes, lengths), notes
    def logits(head, out, lengths, bptt): return read(head, out, lengths, bptt)[0]
    head, out, lengths = made(), 2*torch.randn(4, 12, 5), torch.tensor([12, 7, 6, 1])
    full = torch.full((4,), 12)
    yield same(logits(head, out, full, 12), exact(head, out, full), 'texts of one length, in one piece')
    yield same(logits(head, out, lengths, 12), exact(head, out, lengths), 'other lengths')
    yield same(logits(head, out, full, 4), exact(head, out, full), 'several pieces')
    yield same(logits(head, out, lengths, 3), exact(head, out, lengths), 'pieces that only long texts have')
    yield same(logits(head, out, lengths, 1), exact(head, out, lengths), 'token by token')
    spoiled = out.clone()
    for row, n in zip(spoiled, lengths): row[n:] = 1e3
    yield same(logits(head, spoiled, lengths, 5), exact(head, out, lengths), 'whatever comes behind a text')
    with torch.no_grad(): head.score.weight.mul_(300)
    for bptt in 12, 2: same(logits(head, out, lengths, bptt), exact(head, out, lengths), 'large scores')
    same(logits(head, out.flip(1), full, 2), exact(head, out.flip(1), full), 'large scores')
    with torch.no_grad(): head.score.bias.sub_(500)
    yield same(logits(head, out, lengths, 2), exact(head, out, lengths), 'large scores')
    head = made()
    weights, grads = torch.randn(4, 3), []
    for g in (lambda x: logits(head, x, lengths, 5)), (lambda x: exact(head, x, lengths)):
        x = out.clone().requires_grad_()
        total = (g(x)*weights).sum()
        grads.append(torch.autograd.grad(total, [x, head.score.weight, *head.out.parameters()], allow_unused=True))
    for g, w, name in zip(*grads, ('the outputs', 'the weight of `score`', 'the weight of `out`', 'the bias of `out`')):
        if g is None: raise Wrong(f'no gradient reaches {name}')
        same(g, w, f'the gradient by {name}')
    yield 'gradients'
    long = torch.randn(2, 90, 5)
    n = sum(o.numel() for o in read(head, long, torch.tensor([90, 80]), 10)[1])
    yield expect(n <= 2*2*(5 + 2), 'notes that do not grow', f'the notes on two texts of 90 tokens are {n} numbers')
    from ..awd_lstm import AWD_LSTM
    from ..ulmfit import TextClassifier
    model = TextClassifier(AWD_LSTM(40, 5, 6, 1), head, bptt=4, max_len=8).eval()
    ids, lengths = torch.randint(2, 40, (3, 19)), torch.tensor([5, 19, 11])
    for row, n in zip(ids, lengths): row[:19 - n] = 1
    alone = torch.cat([model(ids[i:i + 1, 19 - n:], lengths[i:i + 1]) for i, n in enumerate(lengths.tolist())])
    yield same(model(ids, lengths), alone, 'in a TextClassifier, a batch and each text alone')
