"Right and wrong answers to the exercises of chapter 12."
import math

import torch
import torch.nn.functional as F
from torch import nn

from minidl.ulmfit import match_vocab, take_rows


def _sorted(logits, p, drop):
    if not 0 < p <= 1: raise ValueError(f'p={p} should be over 0 and at most 1.')
    probs, places = logits.softmax(-1).sort(descending=True)
    mask = torch.empty_like(probs, dtype=torch.bool).scatter(-1, places, drop(probs, probs.cumsum(-1)))
    return logits.masked_fill(mask, -math.inf)

def nucleus(logits, p): return _sorted(logits, p, lambda probs, total: total - probs >= p)

def without_the_last(logits, p): return _sorted(logits, p, lambda probs, total: total > p)
def threshold(logits, p): return _sorted(logits, p, lambda probs, total: probs < 1 - p)
def stays_sorted(logits, p): return nucleus(logits, p).sort(descending=True)[0]
def as_probabilities(logits, p): return nucleus(logits, p).softmax(-1)
def zeros_instead(logits, p):
    out = nucleus(logits, p)
    return out.masked_fill(out == -math.inf, 0.)
def one_count_for_all(logits, p):
    rows = logits.view(-1, logits.shape[-1])
    n = int((nucleus(rows, p)[0] > -math.inf).sum())
    return logits.masked_fill(logits < logits.topk(n)[0][..., -1:], -math.inf)
def in_place(logits, p):
    logits.copy_(nucleus(logits, p))
    return logits
def with_exp(logits, p):
    if not 0 < p <= 1: raise ValueError(f'p={p} should be over 0 and at most 1.')
    order = logits.argsort(descending=True)
    probs = logits.exp().gather(-1, order)
    probs = probs/probs.sum(-1, keepdim=True)
    mask = torch.empty_like(probs, dtype=torch.bool).scatter(-1, order, probs.cumsum(-1) - probs >= p)
    return logits.masked_fill(mask, -math.inf)
def takes_any_p(logits, p): return nucleus(logits, min(max(p, 1e-6), 1.))


def take_cased(rows, old, new):
    exact, spellings = {t: [i] for i, t in enumerate(old)}, {}
    for i, t in enumerate(old): spellings.setdefault(t.lower(), []).append(i)
    places = [exact.get(t) or spellings.get(t.lower()) for t in new]
    return torch.stack([rows[i].mean(0) if i else rows.mean(0) for i in places])

def as_the_chapter(rows, old, new): return take_rows(rows, match_vocab(old, new))
def the_last_one(rows, old, new):
    places = {t.lower(): i for i, t in enumerate(old)} | {t: i for i, t in enumerate(old)}
    places = torch.tensor([places.get(t, places.get(t.lower(), -1)) for t in new])
    return take_rows(rows, places)
def always_the_mean(rows, old, new):
    places = [[i for i, t in enumerate(old) if t.lower() == n.lower()] for n in new]
    return torch.stack([rows[i].mean(0) if i else rows.mean(0) for i in places])
def lower_old_only(rows, old, new):
    exact, spellings = {t: [i] for i, t in enumerate(old)}, {}
    for i, t in enumerate(old): spellings.setdefault(t.lower(), []).append(i)
    return torch.stack([rows[i].mean(0) if (i := exact.get(t) or spellings.get(t)) else rows.mean(0) for t in new])
def zeros_for_strangers(rows, old, new):
    known = {t.lower() for t in old}
    out = take_cased(rows, old, new)
    for i, t in enumerate(new):
        if t.lower() not in known: out[i] = 0
    return out
def in_single(rows, old, new): return take_cased(rows, old, new).float()
def zero_is_false(rows, old, new):
    places, out = {t: i for i, t in enumerate(old)}, take_cased(rows, old, new)
    for i, t in enumerate(new):
        if places.get(t) == 0: out[i] = rows.mean(0)
    return out


def _perplexity(model, ids, bptt, start=lambda model: None, carry=lambda state: state):
    if len(ids) < 2: raise ValueError(f'{len(ids)} tokens have nothing to be surprised at.')
    was, state, total = model.training, start(model), 0.
    model.eval()
    with torch.no_grad():
        for a in range(0, len(ids) - 1, bptt):
            b = min(a + bptt, len(ids) - 1)
            out, state = model.encoder.encode(ids[None, a:b], carry(state))
            total += F.cross_entropy(model.decoder(out)[0][0], ids[a + 1:b + 1], reduction='sum').item()
    model.train(was)
    return math.exp(total/(len(ids) - 1))

def perplexity_of(model, ids, bptt): return _perplexity(model, ids, bptt)

def forgets(model, ids, bptt): return _perplexity(model, ids, bptt, carry=lambda state: None)
def goes_on(model, ids, bptt):
    own = model.encoder.state and [tuple(t[:, :1] for t in hc) for hc in model.encoder.state]
    return _perplexity(model, ids, bptt, start=lambda model: own)
def mean_of_pieces(model, ids, bptt):
    if len(ids) < 2: raise ValueError('too short')
    state, losses = None, []
    with torch.no_grad():
        for x, y in zip(ids[:-1].split(bptt), ids[1:].split(bptt)):
            out, state = model.encoder.encode(x[None], state)
            losses.append(F.cross_entropy(model.decoder(out)[0][0], y))
    return torch.stack(losses).mean().exp().item()
def loses_the_seams(model, ids, bptt):
    state, total, n = None, 0., 0
    with torch.no_grad():
        for piece in ids.split(bptt):
            out, state = model.encoder.encode(piece[None], state)
            total += F.cross_entropy(model.decoder(out)[0][0, :-1], piece[1:], reduction='sum').item()
            n += len(piece) - 1
    return math.exp(total/n)
def at_once(model, ids, bptt): return _perplexity(model, ids, len(ids))
def with_gradients(model, ids, bptt):
    state, total = None, 0.
    for x, y in zip(ids[:-1].split(bptt), ids[1:].split(bptt)):
        out, state = model.encoder.encode(x[None], state)
        total += F.cross_entropy(model.decoder(out)[0][0], y, reduction='sum').item()
    return math.exp(total/(len(ids) - 1))
def in_training(model, ids, bptt):
    if len(ids) < 2: raise ValueError('too short')
    with torch.no_grad(): return with_gradients(model, ids, bptt)
def leaves_evaluation(model, ids, bptt):
    out = _perplexity(model, ids, bptt)
    model.eval()
    return out
def leaves_training(model, ids, bptt):
    out = _perplexity(model, ids, bptt)
    model.train()
    return out
def by_forward(model, ids, bptt):
    was, total = model.training, 0.
    model.eval()
    model.reset()
    with torch.no_grad():
        for x, y in zip(ids[:-1].split(bptt), ids[1:].split(bptt)):
            total += F.cross_entropy(model(x[None])[0][0], y, reduction='sum').item()
    model.train(was)
    return math.exp(total/(len(ids) - 1))
def as_tensor(model, ids, bptt): return torch.tensor(_perplexity(model, ids, bptt))
def nats(model, ids, bptt): return math.log(_perplexity(model, ids, bptt))
def of_nothing(model, ids, bptt): return _perplexity(model, ids, bptt) if len(ids) > 1 else 1.


class AttentionHead(nn.Module):
    def __init__(self, emb_sz, n_classes):
        super().__init__()
        self.score, self.out = nn.Linear(emb_sz, 1), nn.Linear(emb_sz, n_classes)

    def blank(self, bs, like):
        zeros = torch.zeros(bs, 1, device=like.device)
        return [zeros - math.inf, zeros, torch.zeros(bs, self.out.in_features, device=like.device)]

    def take(self, notes, out, real):
        n, t = out.shape[:2]
        top, total, mixed = (o[:n] for o in notes)                                 # (n, 1), (n, 1), (n, emb_sz)
        past = torch.arange(t, device=out.device) >= real[:, None]
        scores = self.score(out)[..., 0].masked_fill(past, -math.inf)              # (n, t)
        new_top = torch.maximum(top, scores.amax(1, keepdim=True))
        shrink, weights = (top - new_top).exp(), (scores - new_top).exp()
        total = total*shrink + weights.sum(1, keepdim=True)
        mixed = mixed*shrink + (weights[..., None]*out).sum(1)
        return [torch.cat([o, old[n:]]) for o, old in zip((new_top, total, mixed), notes)]

    def forward(self, notes, lengths):
        _, total, mixed = notes
        return self.out(mixed/total)

class NoTop(AttentionHead):
    def blank(self, bs, like): return [torch.zeros(bs, 1), torch.zeros(bs, self.out.in_features)]
    def take(self, notes, out, real):
        n, t = out.shape[:2]
        weights = self.score(out).exp()*(torch.arange(t) < real[:, None])[..., None]
        new = notes[0][:n] + weights.sum(1), notes[1][:n] + (weights*out).sum(1)
        return [torch.cat([o, old[n:]]) for o, old in zip(new, notes)]
    def forward(self, notes, lengths): return self.out(notes[1]/notes[0])
class SeesPads(AttentionHead):
    def take(self, notes, out, real): return super().take(notes, out, torch.full_like(real, out.shape[1]))
class NotScaled(AttentionHead):
    def take(self, notes, out, real):
        n = len(out)
        top = notes[0].clone()
        new = super().take([torch.full_like(top, -math.inf), *(torch.zeros_like(o) for o in notes[1:])], out, real)
        return [new[0], *(torch.cat([a[:n] + b[:n], b[n:]]) for a, b in zip(new[1:], notes[1:]))]
class MeanOfPieces(AttentionHead):
    def blank(self, bs, like): return [torch.zeros(bs, 1), torch.zeros(bs, self.out.in_features)]
    def take(self, notes, out, real):
        n = len(out)
        past = torch.arange(out.shape[1]) >= real[:, None]
        weights = self.score(out)[..., 0].masked_fill(past, -math.inf).softmax(1)
        new = notes[0][:n] + real[:, None], notes[1][:n] + real[:, None]*(weights[..., None]*out).sum(1)
        return [torch.cat([o, old[n:]]) for o, old in zip(new, notes)]
    def forward(self, notes, lengths): return self.out(notes[1]/notes[0])
class DropsTheRest(AttentionHead):
    def take(self, notes, out, real): return super().take([o[:len(out)] for o in notes], out, real)
class KeepsAllOutputs(AttentionHead):
    def blank(self, bs, like): return [torch.zeros(bs, 0, self.out.in_features), torch.zeros(bs, 0)]
    def take(self, notes, out, real):
        n, t = out.shape[:2]
        outs, seen = torch.zeros(len(notes[0]), t, out.shape[2]), torch.zeros(len(notes[0]), t)
        outs, seen = torch.cat([out, outs[n:]]), torch.cat([(torch.arange(t) < real[:, None]).float(), seen[n:]])
        return [torch.cat([notes[0], outs], 1), torch.cat([notes[1], seen], 1)]
    def forward(self, notes, lengths):
        outs, seen = notes
        weights = self.score(outs)[..., 0].masked_fill(seen == 0, -math.inf).softmax(1)
        return self.out((weights[..., None]*outs).sum(1))
class Detached(AttentionHead):
    def take(self, notes, out, real):
        return [o.detach() for o in super().take(notes, out, real)]
class AttentionHeadHalf(AttentionHead):
    def take(self, notes, out, real): raise NotImplementedError
class OtherNames(AttentionHead):
    def __init__(self, emb_sz, n_classes):
        super().__init__(emb_sz, n_classes)
        self.linear = self.out
        del self.out


right = {'12.1': nucleus, '12.2': take_cased, '12.3': perplexity_of, '12.4': AttentionHead}
wrong = {
    '12.1': {'two tokens: of 5 logits 1 are left': (without_the_last, threshold),
             'two tokens: of 5 logits 2 are left': stays_sorted,
             'two tokens: of 5 logits 5 are left': (as_probabilities, zeros_instead),
             'each row for itself': one_count_for_all, 'changes its argument `logits`': in_place,
             'large logits': with_exp,
             'p=0.0: raises nothing': takes_any_p},
    '12.2': {'one in capitals: the values differ': as_the_chapter, 'several of them: the values differ': the_last_one,
             'and others in capitals: the values differ': always_the_mean,
             'new tokens in capitals: the values differ': lower_old_only,
             'without any likeness: the values differ': zeros_for_strangers,
             'dtype float32 instead of float64': in_single,
             'both know: the values differ': zero_is_false},
    '12.3': {'of three: the value': forgets, 'has read something else: the value': goes_on,
             'shorter: the value': mean_of_pieces,
             'of one piece: the value': nats, 'of three: the value is not': loses_the_seams, 'with bptt=8': at_once,
             'gradients are kept': with_gradients, 'in training: the value': in_training,
             'afterwards the model is in evaluation': leaves_evaluation,
             'afterwards the model is in training': leaves_training, "model's own state": by_forward,
             'instead of a float': as_tensor,
             'one token: raises nothing': of_nothing},
    '12.4': {'large scores': NoTop, 'other lengths: the values differ': SeesPads,
             'several pieces: the values differ': (NotScaled, MeanOfPieces),
             'with an entry for each text': DropsTheRest, 'are 1080 numbers': KeepsAllOutputs,
             'no gradient reaches': Detached,
             '`take` is not written yet': AttentionHeadHalf, '`out` should be an nn.Linear': OtherNames},
}
