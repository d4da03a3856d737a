"Right and wrong answers to the exercises of chapter 10."
import torch
import torch.nn.functional as F
from torch import nn


def n_layers(model):
    if isinstance(model, (nn.Conv2d, nn.Linear)): return 1
    if hasattr(model, 'convs'): return max(n_layers(model.convs), n_layers(model.shortcut))
    return sum(n_layers(m) for m in model.children())

def all_of_them(model): return sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model.modules())
def only_convs(model):
    if isinstance(model, (nn.Conv2d, nn.Linear)): return 1
    return only_convs(model.convs) if hasattr(model, 'convs') else sum(only_convs(m) for m in model.children())
def one_level(model): return sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model)
def without_linear(model):
    if isinstance(model, nn.Conv2d): return 1
    if hasattr(model, 'convs'): return max(without_linear(model.convs), without_linear(model.shortcut))
    return sum(without_linear(m) for m in model.children())
def no_number(model): n_layers(model)


def drop_path(x, p, training):
    if not training or p == 0: return x
    if p == 1: return torch.zeros_like(x)
    keep = torch.rand(len(x), *[1]*(x.ndim - 1)) >= p
    return x*keep/(1 - p)

def by_dropout(x, p, training): return F.dropout(x, p, training)
def by_dropout2d(x, p, training): return F.dropout2d(x, p, training)
def one_for_all(x, p, training): return x*(torch.rand(()) >= p)/(1 - p) if training and p else x
def not_divided(x, p, training): return x*(torch.rand(len(x), *[1]*(x.ndim - 1)) >= p) if training else x
def swapped(x, p, training):
    if not training or not 0 < p < 1: return x*(p == 0 or not training)
    return x*(torch.rand(len(x), *[1]*(x.ndim - 1)) < p)/(1 - p)
def always(x, p, training): return drop_path(x, p, True)
def four_axes(x, p, training): return x*(torch.rand(len(x), 1, 1, 1) >= p)/max(1 - p, 1e-9) if training else x
def zero_by_zero(x, p, training): return x*(torch.rand(len(x), *[1]*(x.ndim - 1)) >= p)/(1 - p) if training else x
def in_place(x, p, training): return x.mul_(torch.rand(len(x), *[1]*(x.ndim - 1)) >= p).div_(1 - p) if training else x
def float_mask(x, p, training): return drop_path(x, p, training)*torch.ones(())*torch.ones(1) if training else x


class SELayer(nn.Module):
    def __init__(self, nf, reduction=16):
        super().__init__()
        n = max(1, nf//reduction)
        self.factors = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(nf, n), nn.ReLU(),
                                     nn.Linear(n, nf), nn.Sigmoid())
    def forward(self, x): return x*self.factors(x)[:, :, None, None]

class SENoRelu(SELayer):
    def forward(self, x):
        _, _, a, _, b, _ = self.factors
        return x*b(a(x.mean((2, 3)))).sigmoid()[:, :, None, None]
class SENoSigmoid(SELayer):
    def forward(self, x): return x*self.factors[:-1](x)[:, :, None, None]
class SEMax(SELayer):
    def forward(self, x): return x*self.factors[1:](x.amax((2, 3), keepdim=True))[:, :, None, None]
class SESum(SELayer):
    def forward(self, x): return x + self.factors(x)[:, :, None, None]
class SEFactors(SELayer):
    def forward(self, x): return self.factors(x)
class SEInPlace(SELayer):
    def forward(self, x): return x.mul_(self.factors(x)[:, :, None, None])
class SENothingLeft(SELayer):   # with a fixed least width, where the task says one
    def __init__(self, nf, reduction=16): super().__init__(nf, nf//max(2, nf//reduction))
class SESame(SELayer):
    def __init__(self, nf, reduction=16): super().__init__(nf, 1)


class PreActBlock(nn.Module):
    def __init__(self, nf):
        super().__init__()
        def conv(): return nn.Conv2d(nf, nf, 3, padding=1, bias=False)
        self.convs = nn.Sequential(nn.BatchNorm2d(nf), nn.ReLU(), conv(), nn.BatchNorm2d(nf), nn.ReLU(), conv())
        nn.init.zeros_(self.convs[-1].weight)
    def forward(self, x): return x + self.convs(x)

class PreNoZero(PreActBlock):
    def __init__(self, nf):
        super().__init__(nf)
        nn.init.kaiming_normal_(self.convs[-1].weight)
class PreRelu(PreActBlock):
    def forward(self, x): return super().forward(x).relu()
class PreInPlace(PreActBlock):
    def __init__(self, nf):
        super().__init__(nf)
        self.convs[1] = nn.ReLU()
    def forward(self, x): return x.add_(self.convs(x))
class PreUsual(nn.Module):
    def __init__(self, nf):
        super().__init__()
        def conv(): return [nn.Conv2d(nf, nf, 3, padding=1, bias=False), nn.BatchNorm2d(nf)]
        self.convs = nn.Sequential(*conv(), nn.ReLU(), *conv())
        nn.init.zeros_(self.convs[-1].weight)
    def forward(self, x): return x + self.convs(x)
class PreNoRelu(PreActBlock):
    def __init__(self, nf):
        super().__init__(nf)
        self.convs[4] = nn.Identity()
class PreBias(PreActBlock):
    def __init__(self, nf):
        super().__init__(nf)
        self.convs[2] = nn.Conv2d(nf, nf, 3, padding=1)
class PreShared(PreActBlock):
    def __init__(self, nf):
        super().__init__(nf)
        self.convs[3] = self.convs[0]


right = {'10.1': n_layers, '10.2': drop_path, '10.3': SELayer, '10.4': PreActBlock}
wrong = {
    '10.1': {'a block with a convolution in its shortcut: gives 4': all_of_them,
             'whose shortcut is the longer way: gives 0': only_convs, 'layers in a row: gives 1': one_level,
             'layers in a row: gives 2': without_linear, 'is a `return` missing': no_number},
    '10.2': {'a part is zero and a part is not': (by_dropout, by_dropout2d),
             'all items have the same fate': one_for_all, 'the items that are kept: the values': not_divided,
             'items are left out': swapped, 'outside of training': always, 'two axes: shape': four_axes,
             'p = 1: NaN': zero_by_zero, 'changes its argument `x` in place': in_place,
             'bfloat16: a dtype of its own': float_mask},
    '10.3': {'a map: the values': (SENoRelu, SEMax), 'not between 0 and 1': SENoSigmoid,
             'one factor for all its places': SESum, 'shape (3, 32) instead of': SEFactors,
             'the input is changed in place': SEInPlace,
             'fewer channels than reduction: SELayer(8, 16) has parameters': SENothingLeft,
             'from 32 to 8 and back, have others': SESame},
    '10.4': {'at the start the input passes on, negative numbers too: the values': (PreNoZero, PreRelu),
             'here it is convolution, norm, convolution, norm': PreUsual,
             'the sum, in training: the values': PreNoRelu, 'more or fewer parameters': (PreBias, PreShared),
             'the input is changed in place': PreInPlace},
}
