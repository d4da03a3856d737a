"Right and wrong answers to the exercises of chapter 07a."
import copy

import torch
from torch import nn

from minidl.norm import BatchNorm


def fold_bn(conv, bn):
    scale = bn.weight*(bn.running_var + bn.eps).rsqrt()
    new = copy.deepcopy(conv)
    bias = 0. if conv.bias is None else conv.bias
    new.weight = nn.Parameter((conv.weight*scale[:, None, None, None]).detach())
    new.bias = nn.Parameter((bn.bias + (bias - bn.running_mean)*scale).detach())
    return new

def new_layer(conv, bn):
    new, done = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size), fold_bn(conv, bn)
    new.load_state_dict(done.state_dict())
    return new
def forgets_the_bias(conv, bn):
    bare = copy.deepcopy(conv)
    bare.bias = None
    return fold_bn(bare, bn)
def no_eps(conv, bn):
    bn = copy.deepcopy(bn)
    bn.eps = 0.
    return fold_bn(conv, bn)
def wrong_axis(conv, bn):
    new = fold_bn(conv, bn)
    scale = bn.weight*(bn.running_var + bn.eps).rsqrt()
    new.weight = nn.Parameter((conv.weight*scale[:new.in_channels, None, None]).detach())
    return new
def in_place(conv, bn):
    conv.weight.data *= (bn.weight*(bn.running_var + bn.eps).rsqrt())[:, None, None, None]
    return conv
def sequential(conv, bn): return nn.Sequential(conv, bn)
def std_for_var(conv, bn):
    bn = copy.deepcopy(bn)
    bn.running_var = bn.running_var**2
    return fold_bn(conv, bn)


class InstanceNorm(nn.Module):
    def __init__(self, nf, eps=1e-5):
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(nf)), nn.Parameter(torch.zeros(nf)), eps
    def forward(self, x):
        var, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        return (x - mean)*(var + self.eps).rsqrt()*self.weight[:, None, None] + self.bias[:, None, None]

class OverTheBatch(InstanceNorm):
    def forward(self, x):
        var, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
        return (x - mean)*(var + self.eps).rsqrt()*self.weight[:, None, None] + self.bias[:, None, None]
class OverChannels(InstanceNorm):
    def forward(self, x):
        var, mean = torch.var_mean(x, (1, 2, 3), correction=0, keepdim=True)
        return (x - mean)*(var + self.eps).rsqrt()*self.weight[:, None, None] + self.bias[:, None, None]
class Unbiased(InstanceNorm):
    def forward(self, x):
        var, mean = torch.var_mean(x, (2, 3), keepdim=True)
        return (x - mean)*(var + self.eps).rsqrt()*self.weight[:, None, None] + self.bias[:, None, None]
class EpsOutside(InstanceNorm):
    def forward(self, x):
        std, mean = torch.std_mean(x, (2, 3), correction=0, keepdim=True)
        return (x - mean)/(std + self.eps)*self.weight[:, None, None] + self.bias[:, None, None]
class NoGradientOfStats(InstanceNorm):
    def forward(self, x):
        var, mean = torch.var_mean(x.detach(), (2, 3), correction=0, keepdim=True)
        return (x - mean)*(var + self.eps).rsqrt()*self.weight[:, None, None] + self.bias[:, None, None]
class NotLearned(nn.Module):
    def __init__(self, nf, eps=1e-5):
        super().__init__()
        self.weight, self.bias, self.eps = torch.ones(nf), torch.zeros(nf), eps
class OtherNames(nn.Module):
    def __init__(self, nf, eps=1e-5):
        super().__init__()
        self.mult, self.add = nn.Parameter(torch.ones(nf)), nn.Parameter(torch.zeros(nf))
class NoModule:
    def __init__(self, nf, eps=1e-5): pass


def recompute_stats(model, dl):
    layers = [m for m in model.modules() if isinstance(m, BatchNorm)]
    modes, moms = {m: m.training for m in model.modules()}, [m.mom for m in layers]
    model.eval()
    for m in layers: m.train()
    with torch.no_grad():
        for k, (xb, _) in enumerate(dl, 1):
            for m in layers: m.mom = 1/k
            model(xb)
    for m, mom in zip(layers, moms): m.mom = mom
    for m, mode in modes.items(): m.training = mode

def usual_momentum(model, dl):
    layers = [m for m in model.modules() if isinstance(m, BatchNorm)]
    for m in layers: m.train()
    with torch.no_grad():
        for xb, _ in dl: model(xb)
def last_batch(model, dl):
    for m in model.modules():
        if isinstance(m, BatchNorm): m.mom = 1.
    with torch.no_grad():
        for xb, _ in dl: model.train()(xb)
def with_dropout(model, dl):
    modes, layers = {m: m.training for m in model.modules()}, [m for m in model.modules() if isinstance(m, BatchNorm)]
    moms = [m.mom for m in layers]
    model.train()
    with torch.no_grad():
        for k, (xb, _) in enumerate(dl, 1):
            for m in layers: m.mom = 1/k
            model(xb)
    for m, mom in zip(layers, moms): m.mom = mom
    for m, mode in modes.items(): m.training = mode
def leaves_mom(model, dl):
    modes, layers = {m: m.training for m in model.modules()}, [m for m in model.modules() if isinstance(m, BatchNorm)]
    moms = [m.mom for m in layers]
    recompute_stats(model, dl)
    for m, mom in zip(layers, moms): m.mom = mom/3
def leaves_modes(model, dl):
    recompute_stats(model, dl)
    model.eval()
def leaves_gradients(model, dl):
    recompute_stats(model, dl)
    for p in model.parameters(): p.grad = torch.zeros_like(p)
def adds_to_the_old(model, dl):
    layers = [m for m in model.modules() if isinstance(m, BatchNorm)]
    moms, modes = [m.mom for m in layers], {m: m.training for m in model.modules()}
    model.eval()
    for m in layers: m.train()
    with torch.no_grad():
        for k, (xb, _) in enumerate(dl, 1):
            for m in layers: m.mom = 1/(k + 1)
            model(xb)
    for m, mom in zip(layers, moms): m.mom = mom
    for m, mode in modes.items(): m.training = mode


right = {'07a.1': fold_bn, '07a.2': InstanceNorm, '07a.3': recompute_stats}
wrong = {
    '07a.1': {'stride and padding: shape': new_layer, 'with bias: the values differ': forgets_the_bias,
              'another eps: the values differ': no_eps,
              'a convolution without bias: the values differ': (wrong_axis, std_for_var),
              'changes its argument `conv.weight` in place': in_place, 'it should give an nn.Conv2d': sequential},
    '07a.2': {'a batch: the values differ': (OverTheBatch, OverChannels, Unbiased),
              'another eps: the values differ': EpsOutside, 'the gradient by the input': NoGradientOfStats,
              'and are none': NotLearned, "`weight` and `bias` of shape (3,), and are {'mult'": OtherNames,
              'a subclass of nn.Module': NoModule},
    '07a.3': {'the first mean: the values differ': (usual_momentum, last_batch, adds_to_the_old),
              'the second mean: the values differ': with_dropout, '`mom` of a layer': leaves_mom,
              'in another mode than before': leaves_modes, 'gradients are left': leaves_gradients},
}
