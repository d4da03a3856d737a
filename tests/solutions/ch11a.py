"Right and wrong answers to the exercises of chapter 11a."
from contextlib import contextmanager

import torch
import torch.nn.functional as F


def gru_cell(x, h, w_ih, w_hh, b_ih, b_hh):
    r_x, z_x, n_x = (x @ w_ih.T + b_ih).chunk(3, 1)
    r_h, z_h, n_h = (h @ w_hh.T + b_hh).chunk(3, 1)
    r, z = (r_x + r_h).sigmoid(), (z_x + z_h).sigmoid()
    n = (n_x + r*n_h).tanh()
    return (1 - z)*n + z*h

def reset_before_the_product(x, h, w_ih, w_hh, b_ih, b_hh):
    r_x, z_x, n_x = (x @ w_ih.T + b_ih).chunk(3, 1)
    w_r, w_z, w_n = w_hh.chunk(3)
    b_r, b_z, b_n = b_hh.chunk(3)
    r, z = (r_x + h @ w_r.T + b_r).sigmoid(), (z_x + h @ w_z.T + b_z).sigmoid()
    n = (n_x + (r*h) @ w_n.T + b_n).tanh()
    return (1 - z)*n + z*h
def bias_outside(x, h, w_ih, w_hh, b_ih, b_hh):
    r_x, z_x, n_x = (x @ w_ih.T + b_ih + b_hh).chunk(3, 1)
    r_h, z_h, n_h = (h @ w_hh.T).chunk(3, 1)
    r, z = (r_x + r_h).sigmoid(), (z_x + z_h).sigmoid()
    return (1 - z)*(n_x + r*n_h).tanh() + z*h
def z_the_other_way(x, h, w_ih, w_hh, b_ih, b_hh):
    return h + gru_cell(x, h, w_ih, w_hh, b_ih, b_hh)
def z_before_r(x, h, w_ih, w_hh, b_ih, b_hh):
    def turn(w):
        r, z, n = w.chunk(3)
        return torch.cat([z, r, n])
    return gru_cell(x, h, *map(turn, (w_ih, w_hh, b_ih, b_hh)))
def state_detached(x, h, w_ih, w_hh, b_ih, b_hh):
    return gru_cell(x, h.detach(), w_ih, w_hh, b_ih, b_hh)
def four_gates(x, h, w_ih, w_hh, b_ih, b_hh):
    i, f, g, o = (x @ w_ih.T + b_ih + h @ w_hh.T + b_hh).chunk(4, 1)
    return o.sigmoid()*(f.sigmoid()*h + i.sigmoid()*g.tanh())
def with_exp(x, h, w_ih, w_hh, b_ih, b_hh):
    r_x, z_x, n_x = (x @ w_ih.T + b_ih).chunk(3, 1)
    r_h, z_h, n_h = (h @ w_hh.T + b_hh).chunk(3, 1)
    r, z = 1/(1 + (-r_x - r_h).exp()), 1/(1 + (-z_x - z_h).exp())
    e = (2*(n_x + r*n_h)).exp()
    return (1 - z)*(e - 1)/(e + 1) + z*h


def zoneout(new, old, p, training):
    if not 0 <= p <= 1: raise ValueError(f'p={p} should be a probability.')
    if not training: return p*old + (1 - p)*new
    return torch.where(torch.rand(new.shape, device=new.device) < p, old, new)

def like_dropout(new, old, p, training):
    if p in (0, 1) or not training: return zoneout(new, old, p, training)
    keep = (torch.rand_like(new) >= p)/(1 - p)
    return keep*new + (1 - keep)*old
def dropped_difference(new, old, p, training): return old + F.dropout(new - old, p, training)
def new_in_evaluation(new, old, p, training): return zoneout(new, old, p, True) if training else new.clone()
def other_way_round(new, old, p, training): return zoneout(old, new, p, training)
def one_mask_for_all(new, old, p, training):
    if not training or not 0 <= p <= 1: return zoneout(new, old, p, training)
    return torch.where(torch.rand(new.shape[1]) < p, old, new)
def rows_as_a_whole(new, old, p, training):
    if not training or not 0 <= p <= 1 or len(new) != 40: return zoneout(new, old, p, training)
    return torch.where((torch.arange(40) % 20 < 20*p)[:, None][torch.randperm(40)], old, new)
def mixes_always(new, old, p, training): return zoneout(new, old, p, False)
def old_detached(new, old, p, training): return zoneout(new, old.detach(), p, training)
def any_p(new, old, p, training): return zoneout(new, old, min(max(p, 0), 1), training)


class WeightMean:
    def __init__(self, model):
        self.params, self.n = list(model.parameters()), 0
        self.mean = [torch.zeros_like(p) for p in self.params]
    @torch.no_grad()
    def update(self):
        self.n += 1
        for m, p in zip(self.mean, self.params): m += (p - m)/self.n
    @contextmanager
    def swapped(self):
        if not self.n: raise ValueError('There is no mean before the first update.')
        own = [p.detach().clone() for p in self.params]
        self.set(self.mean)
        try: yield
        finally: self.set(own)
    @torch.no_grad()
    def set(self, values):
        for p, v in zip(self.params, values): p.copy_(v)

class CountsTheStart(WeightMean):
    def __init__(self, model):
        super().__init__(model)
        self.update()
    @contextmanager
    def swapped(self):
        if self.n < 2: raise ValueError('There is no mean before the first update.')
        with super().swapped(): yield
class Exponential(WeightMean):
    @torch.no_grad()
    def update(self):
        self.n += 1
        for m, p in zip(self.mean, self.params): m.copy_(p if self.n == 1 else 0.9*m + 0.1*p)
class NotOnErrors(WeightMean):
    @contextmanager
    def swapped(self):
        if not self.n: raise ValueError('There is no mean before the first update.')
        own = [p.detach().clone() for p in self.params]
        self.set(self.mean)
        yield
        self.set(own)
class NoCopy(WeightMean):
    @contextmanager
    def swapped(self):
        if not self.n: raise ValueError('There is no mean before the first update.')
        own = [p.detach() for p in self.params]
        self.set(self.mean)
        try: yield
        finally: self.set(own)
class NewParameters(WeightMean):
    def __init__(self, model):
        super().__init__(model)
        self.model = model
    @contextmanager
    def swapped(self):
        if not self.n: raise ValueError('There is no mean before the first update.')
        own = dict(self.model.named_parameters())
        for (name, _), m in zip(list(own.items()), self.mean): self.put(name, torch.nn.Parameter(m.clone()))
        try: yield
        finally:
            for name, p in own.items(): self.put(name, p)
    def put(self, name, p): setattr(self.model[int(name[0])], name[2:], p)
class KeepsAll(WeightMean):
    def __init__(self, model):
        super().__init__(model)
        self.all = []
    def update(self):
        self.n += 1
        self.all.append([p.detach().clone() for p in self.params])
        self.mean = [torch.stack(ps).mean(0) for ps in zip(*self.all)]
class WithBuffers(WeightMean):
    def __init__(self, model):
        super().__init__(model)
        self.model, self.buffers = model, [b.clone() for b in model.buffers()]
    @contextmanager
    def swapped(self):
        own = [b.clone() for b in self.model.buffers()]
        with super().swapped():
            for b, v in zip(self.model.buffers(), self.buffers): b.copy_(v)
            try: yield
            finally:
                for b, v in zip(self.model.buffers(), own): b.copy_(v)
class OfNothing(WeightMean):
    @contextmanager
    def swapped(self):
        if not self.n: yield
        else:
            with super().swapped(): yield
class WholeState(WeightMean):
    def __init__(self, model):
        super().__init__(model)
        self.model, self.mean = model, {k: torch.zeros_like(v) for k, v in model.state_dict().items()}
    @torch.no_grad()
    def update(self):
        self.n += 1
        for k, v in self.model.state_dict().items(): self.mean[k] += (v - self.mean[k])/self.n
class Swallows(WeightMean):
    @contextmanager
    def swapped(self):
        with super().swapped():
            try: yield
            except KeyError: pass
class WeightMeanHalf(WeightMean):
    def swapped(self): raise NotImplementedError


def mixture_of_softmaxes(h, latent, prior, emb):
    z = (h @ latent.T).tanh().unflatten(-1, (len(prior), -1))        # (bs, seq, k, emb_sz)
    log_p = (z @ emb.T).log_softmax(-1)                              # (bs, seq, k, n_tokens)
    share = (h @ prior.T).log_softmax(-1)                            # (bs, seq, k)
    return (log_p + share[..., None]).logsumexp(-2)

def mixed_logits(h, latent, prior, emb):
    z = (h @ latent.T).tanh().unflatten(-1, (len(prior), -1))
    return ((z @ emb.T)*(h @ prior.T).softmax(-1)[..., None]).sum(-2).log_softmax(-1)
def interleaved(h, latent, prior, emb):
    k = len(prior)
    return mixture_of_softmaxes(h, latent.unflatten(0, (-1, k)).transpose(0, 1).flatten(0, 1), prior, emb)
def through_probabilities(h, latent, prior, emb):
    z = (h @ latent.T).tanh().unflatten(-1, (len(prior), -1))
    return ((z @ emb.T).softmax(-1)*(h @ prior.T).softmax(-1)[..., None]).sum(-2).log()
def all_components_alike(h, latent, prior, emb): return mixture_of_softmaxes(h, latent, 0*prior, emb)
def no_log(h, latent, prior, emb): return mixture_of_softmaxes(h, latent, prior, emb).exp()
def no_tanh(h, latent, prior, emb):
    z = (h @ latent.T).unflatten(-1, (len(prior), -1))
    return ((z @ emb.T).log_softmax(-1) + (h @ prior.T).log_softmax(-1)[..., None]).logsumexp(-2)
def components_kept(h, latent, prior, emb):
    z = (h @ latent.T).tanh().unflatten(-1, (len(prior), -1))
    return (z @ emb.T).log_softmax(-1) + (h @ prior.T).log_softmax(-1)[..., None]


right = {'11a.1': gru_cell, '11a.2': zoneout, '11a.5': WeightMean, '11a.6': mixture_of_softmaxes}
wrong = {
    '11a.1': {'a batch of five: the values differ': (reset_before_the_product, bias_outside, z_the_other_way,
                                                     z_before_r),
              'a batch of five: the gradient by argument 2': state_detached,
              'raises RuntimeError: The size of tensor': four_gates,
              'all open or shut: NaN': with_exp},
    '11a.2': {'should be one of the two': (like_dropout, dropped_difference, mixes_always),
              'in evaluation: the values differ': new_in_evaluation,
              'keeps the old state': other_way_round, 'share their fate': (one_mask_for_all, rows_as_a_whole),
              'no gradient reaches the old state': old_detached, 'p=-0.1: raises nothing': any_p},
    '11a.5': {'one update: a weight: the values differ': CountsTheStart,
              'three updates: a weight: the values differ': Exponential,
              'the model still has the mean': NotOnErrors, 'are not what they were before': NoCopy,
              'are other objects': NewParameters,
              'times the weights': KeepsAll, 'buffers of the model are exchanged': WithBuffers,
              'a mean of nothing: raises nothing': OfNothing,
              "can't be cast": WholeState, 'should go through': Swallows,
              '`swapped` is not written yet': WeightMeanHalf},
    '11a.6': {'three of them: the values differ': (mixed_logits, interleaved, all_components_alike),
              'large numbers: infinite': through_probabilities,
              'sum to 1': no_log, 'a single component: the values differ': no_tanh,
              'shape (2, 6, 3, 7) instead of': components_kept},
}
