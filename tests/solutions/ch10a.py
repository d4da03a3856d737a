"Right and wrong answers to the exercises of chapter 10a."
import copy
import re

import torch
from torch import nn

from minidl.transfer import bn_splitter, body_splitter, timm_key


def what_moves(model, step):
    def now():
        return [{n: t.detach().clone() for n, t in some} for some in (model.named_parameters(), model.named_buffers())]
    before = now()
    step(model)
    return tuple([n for n, t in a.items() if not torch.equal(t, b[n])] for b, a in zip(before, now()))

def not_cloned(model, step):
    ps, bs = dict(model.named_parameters()), dict(model.named_buffers())
    step(model)
    moved_params = [n for n, p in model.named_parameters() if not torch.equal(p, ps[n])]
    return moved_params, [n for n, b in model.named_buffers() if not torch.equal(b, bs[n])]
def may_move(model, step):
    what_moves(model, step)
    return [n for n, p in model.named_parameters() if p.requires_grad], [n for n, _ in model.named_buffers()]
def all_in_one(model, step): return sum(what_moves(model, step), [])
def by_sum(model, step):
    ps, bs = ({n: t.sum().item() for n, t in some} for some in (model.named_parameters(), model.named_buffers()))
    step(model)
    return [n for n, t in model.named_parameters() if t.sum() != ps[n]], [n for n, _ in bs.items()]
def all_numbers(model, step):
    before = copy.deepcopy(model)
    step(model)
    def moved(a, b): return [n for (n, t), (_, u) in zip(a, b) if (t != u).all()]
    return (moved(model.named_parameters(), before.named_parameters()),
            moved(model.named_buffers(), before.named_buffers()))
def on_a_copy(model, step):
    moved = copy.deepcopy(model)
    step(model)
    return what_moves(moved, lambda m: None)


def gray_conv(conv):
    new = nn.Conv2d(1, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
                    bias=conv.bias is not None, padding_mode=conv.padding_mode).to(conv.weight.dtype)
    with torch.no_grad():
        new.weight.copy_(conv.weight.sum(1, keepdim=True))
        if conv.bias is not None: new.bias.copy_(conv.bias)
    return new

def by_mean(conv):
    new = gray_conv(conv)
    new.weight.data.div_(conv.in_channels)
    return new
def first_channel(conv):
    new = gray_conv(conv)
    new.weight.data.copy_(conv.weight[:, :1])
    return new
def no_settings(conv):
    new = nn.Conv2d(1, conv.out_channels, conv.kernel_size, bias=conv.bias is not None)
    new.load_state_dict(gray_conv(conv).state_dict())
    return new
def shared_bias(conv):
    new = gray_conv(conv)
    new.bias = conv.bias
    return new
def in_place(conv):
    conv.weight.data, conv.in_channels = conv.weight.data.sum(1, keepdim=True), 1
    return conv
def always_bias(conv):
    new = nn.Conv2d(1, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
                    padding_mode=conv.padding_mode).to(conv.weight.dtype)
    new.weight.data.copy_(conv.weight.sum(1, keepdim=True))
    new.bias.data.copy_(0. if conv.bias is None else conv.bias)
    return new
def frozen(conv): return gray_conv(conv).requires_grad_(False)
def a_function(conv): return lambda x: conv(x.expand(-1, conv.in_channels, -1, -1))
def as_copy(conv):
    new = copy.deepcopy(conv)
    new.weight = nn.Parameter(conv.weight.detach().sum(1, keepdim=True))
    return new


def piece_splitter(model, cuts=()):
    *_, free = bn_splitter(model)
    ids = {id(p) for p in free}
    return [[p for p in g if id(p) not in ids] for g in body_splitter(model, cuts)[:-1]] + [free]

def norms_in_place(model, cuts=()): return body_splitter(model, cuts)
def norms_twice(model, cuts=()): return body_splitter(model, cuts)[:-1] + bn_splitter(model)[1:]
def norms_apart(model, cuts=()):
    *pieces, last = piece_splitter(model, cuts)
    head = {id(p) for p in model[1].parameters()}
    return [*pieces, [p for p in last if id(p) not in head], [p for p in last if id(p) in head]]
def norms_left_out(model, cuts=()): return piece_splitter(model, cuts)[:-1] + [list(model[1].parameters())]
def only_batch_norm(model, cuts=()):
    norms = [p for m in model[0].modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
    *pieces, head = body_splitter(model, cuts)
    return [[p for p in g if all(p is not q for q in norms)] for g in pieces] + [norms + head]
def cuts_ignored(model, cuts=()): return bn_splitter(model)
def unchecked(model, cuts=()):
    ids, edges = {id(p) for p in bn_splitter(model)[1]}, [0, *cuts, len(model[0])]
    return [[p for p in model[0][a:b].parameters() if id(p) not in ids]
            for a, b in zip(edges, edges[1:])] + [bn_splitter(model)[1]]


def torchvision_key(key):
    if key.startswith('fc.'): return key.replace('fc.', '10.')
    if m := re.fullmatch(r'layer(\d)\.(\d+)\.downsample\.([01])\.(\w+)', key):
        return f"{int(m[1]) + 3}.{m[2]}.shortcut.{0 if m[1] == '1' else 1}.{m[3]}.{m[4]}"
    return timm_key(key) if key.startswith('layer') else key

def with_stem(key): return key.replace('conv1.', '0.0.') if key.startswith('conv1.') else torchvision_key(key)
def no_pool(key): return torchvision_key(key).replace('.shortcut.1.', '.shortcut.0.')
def always_pool(key): return torchvision_key(key).replace('.shortcut.0.', '.shortcut.1.')
def from_zero(key): return re.sub(r'convs\.(\d)', lambda m: f'convs.{int(m[1]) + 1}', torchvision_key(key))
def one_digit(key): return torchvision_key(key) if not re.match(r'layer\d\.\d\d', key) else key
def no_linear(key): return torchvision_key(key) if not key.startswith('fc') else key
def as_regex(key): return re.match(r'layer(\d)', key)


right = {'10a.1': what_moves, '10a.2': gray_conv, '10a.3': piece_splitter, '10a.4': torchvision_key}
wrong = {
    '10a.1': {'a step of training [0]: gives a list of 0': (not_cloned, on_a_copy),
              'a prediction in evaluation mode': may_move,
              'instead of a tuple': all_in_one, 'a single number [0]: gives a list of 0': all_numbers,
              'a step of training [0]: gives a list of': by_sum},
    '10a.2': {'a layer for colors: the values': (by_mean, first_channel), 'stride and padding: shape': no_settings,
              'they share a parameter': shared_bias,
              'the new layer takes 3 channels': as_copy, 'no bias: it should have the parameters': always_bias,
              'cannot be trained': frozen,
              'it should give an nn.Conv2d': a_function, '`conv.weight` in place': in_place},
    '10a.3': {'0.0.1.weight is in group 0 of 4': norms_in_place, 'is there twice': norms_twice,
              '5 groups instead of 4': norms_apart, 'is in no group': norms_left_out,
              '0.1.1.weight is in group 1': only_batch_norm, '2 groups instead of 4': cuts_ignored,
              'raises nothing': unchecked},
    '10a.4': {"the stem has no counterpart: 'conv1.weight' becomes": with_stem,
              "shortcuts: 'layer2.0.downsample.0.weight'": no_pool, 'the shortcut of stage 1': always_pool,
              "convolutions: 'layer1.0.conv1.weight' becomes '4.0.convs.1": from_zero, 'blocks from 10 on': one_digit,
              'the linear layer': no_linear, 'gives Match, not a name': as_regex},
}
