"""Right and wrong answers to the exercises of chapter 02. `wrong` maps a part of the message to an answer that should
get it."""
import torch

from minidl.backprop import Module


def move_each(f, x, eps, slope):
    flat, out = x.flatten(), torch.zeros_like(x).flatten()
    for i in range(len(flat)):
        step = torch.zeros_like(flat)
        step[i] = eps
        out[i] = slope(f, flat, step, eps, x)
    return out.view_as(x)

def numeric_grad(f, x, eps=1e-6):
    def central(f, flat, step, eps, x): return (f((flat + step).view_as(x)) - f((flat - step).view_as(x)))/(2*eps)
    return move_each(f, x, eps, central)

def one_sided(f, x, eps=1e-6):
    def forward(f, flat, step, eps, x): return (f((flat + step).view_as(x)) - f(x))/eps
    return move_each(f, x, eps, forward)

def twice_too_large(f, x, eps=1e-6): return 2*numeric_grad(f, x, eps)
def flattened(f, x, eps=1e-6): return numeric_grad(f, x, eps).flatten()
def in_single(f, x, eps=1e-6): return numeric_grad(f, x, eps).float()
def no_eps(f, x): return numeric_grad(f, x)
def forgets(f, x, eps=1e-6): numeric_grad(f, x, eps)
def in_place(f, x, eps=1e-6):
    out = numeric_grad(f, x, eps)
    x += eps
    return out


class Bce(Module):
    def forward(self, logits, targ):
        p = logits.sigmoid()
        return -torch.where(targ == 1, p, 1 - p).log().mean()
    def grad(self, g, logits, targ): return g*(logits.sigmoid() - targ)/logits.numel()

class BceSum(Bce):
    def forward(self, logits, targ): return super().forward(logits, targ)*len(targ)
class BceNoMean(Bce):
    def grad(self, g, logits, targ): return g*(logits.sigmoid() - targ)
class BceNoG(Bce):
    def grad(self, g, logits, targ): return (logits.sigmoid() - targ)/logits.numel()
class BceSign(Bce):
    def grad(self, g, logits, targ): return g*(targ - logits.sigmoid())/logits.numel()
class BceColumn(Bce):
    def grad(self, g, logits, targ): return super().grad(g, logits, targ)[:, 0]
class BceHalf(Module):
    def forward(self, logits, targ): return Bce.forward(self, logits, targ)
    def grad(self, g, logits, targ): raise NotImplementedError


class ReluOut(Module):
    def __call__(self, inp):
        self.out = inp.clamp_min(0.)
        return self.out
    def backward(self, g=1.): return g*(self.out > 0)

class ReluIn(Module):
    def forward(self, inp): return inp.clamp_min(0.)
    def grad(self, g, inp): return g*(inp > 0)
class ReluMask(Module):
    def __call__(self, inp):
        self.mask = inp > 0
        return inp*self.mask
    def backward(self, g=1.): return g*self.mask
class ReluInPlace(ReluOut):
    def __call__(self, inp): return super().__call__(inp.clamp_(min=0.))
class ReluPasses(ReluOut):
    def backward(self, g=1.): return g*(self.out >= 0)


def fit_quadratic(t, y, lr, steps):
    mean, std = t.mean(), t.std()
    s, p = (t - mean)/std, torch.zeros(3, requires_grad=True)
    for _ in range(steps):
        ((p[0]*s**2 + p[1]*s + p[2] - y)**2).mean().backward()
        with torch.no_grad():
            p -= lr*p.grad
            p.grad = None
    a, b, c = p.tolist()
    mean, std = mean.item(), std.item()
    return a/std**2, b/std - 2*a*mean/std**2, c - b*mean/std + a*mean**2/std**2

def standardized_units(t, y, lr, steps):
    a, b, c = fit_quadratic((t - t.mean())/t.std(), y, lr, steps)
    return a, b, c
def raw_units(t, y, lr, steps):
    p = torch.zeros(3, requires_grad=True)
    for _ in range(steps):
        ((p[0]*t**2 + p[1]*t + p[2] - y)**2).mean().backward()
        with torch.no_grad():
            p -= lr*p.grad
            p.grad = None
    return tuple(p.tolist())
def closed_form(t, y, lr, steps):
    X = torch.stack([t**2, t, torch.ones_like(t)], 1)
    return tuple(torch.linalg.lstsq(X.double(), y.double()[:, None]).solution[:, 0].tolist())
def as_tensor(t, y, lr, steps): return torch.tensor(fit_quadratic(t, y, lr, steps))


right = {'02.1': numeric_grad, '02.2': Bce, '02.3': ReluOut, '02.5': fit_quadratic}
wrong = {
    '02.1': {'by central differences: the values': one_sided, 'values differ at 5 of 5 places': twice_too_large,
             'shape (12,) instead of (3, 4)': flattened,
             'dtype float32 instead of float64': in_single, 'wrong arguments': no_eps, 'is a `return` missing': forgets,
             'changes its argument `x`': in_place},
    '02.2': {'forward: the value': BceSum, 'backward: the values differ': BceNoMean, 'g = 0.5': BceNoG,
             'backward: the values': BceSign,
             'shape (6,) instead of (6, 1)': BceColumn, '`grad` is not written yet': BceHalf},
    '02.3': {'still holds its input': ReluIn, 'besides its output': ReluMask, 'changed in place': ReluInPlace,
             'backward: the values': ReluPasses},
    '02.5': {'misses the points': standardized_units, 'NaN or infinite': raw_units, 'is `steps` used': closed_form,
             'a tuple of three': as_tensor},
}
