"Right and wrong answers to the exercises of chapter 09b."
import math
import struct

import torch


def lost_updates(model, opt):
    has = {n: p.grad != 0 for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    old = {n: p.detach().half() for n, p in model.named_parameters()}
    opt.step()
    new = {n: p.detach().half() for n, p in model.named_parameters()}
    return {n: (old[n] == new[n])[has[n]].float().mean().item() for n in has}

def lost_no_copy(model, opt):
    has = {n: p.grad != 0 for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    old = {n: p for n, p in model.named_parameters() if n in has}
    opt.step()
    return {n: (old[n].half() == p.half())[has[n]].float().mean().item()
            for n, p in model.named_parameters() if n in has}
def lost_with_zeros(model, opt):
    has = [n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()]
    old = {n: p.detach().half() for n, p in model.named_parameters()}
    opt.step()
    return {n: (old[n] == p.half()).float().mean().item() for n, p in model.named_parameters() if n in has}
def lost_all_named(model, opt):
    old = {n: p.detach().half() for n, p in model.named_parameters()}
    has = {n: p.grad != 0 if p.grad is not None else torch.ones_like(p) != 0 for n, p in model.named_parameters()}
    opt.step()
    return {n: (old[n] == p.half())[has[n]].float().mean().item() for n, p in model.named_parameters()}
def lost_by_hand(model, opt):   # a step of SGD in float16, as in the chapter's cell, and then the step
    lr, out = opt.param_groups[0]['lr'], {}
    for n, p in model.named_parameters():
        if p.grad is None or not p.grad.any(): continue
        w, g = p.detach().half(), p.grad.half()
        out[n] = (w - lr*g == w)[p.grad != 0].float().mean().item()
    opt.step()
    return out
def lost_tensors(model, opt): return {n: torch.tensor(v) for n, v in lost_updates(model, opt).items()}
def lost_halved(model, opt):
    out = lost_updates(model, opt)
    model.half()
    return out
def lost_put_back(model, opt):
    before = [p.detach().clone() for p in model.parameters()]
    out = lost_updates(model, opt)
    for p, b in zip(model.parameters(), before): p.data.copy_(b)
    return out


def add_with_rest(w, rest, update):
    due = rest + update
    old = w.clone()
    w += due
    rest.copy_(due - (w - old))

def rest_by_float32(w, rest, update):   # right as well
    total = w.float() + rest.float() + update.float()
    w.copy_(total)
    rest.copy_(total - w.float())
rest_by_float32.__name__ = 'add_with_rest'

def no_rest(w, rest, update): w += update
def rest_forgotten(w, rest, update):
    old = w.clone()
    w += update
    rest.copy_(update - (w - old))
def rest_sign(w, rest, update):
    due, old = update - rest, w.clone()
    w += due
    rest.copy_(due - (w - old))
def rest_returned(w, rest, update):
    due = rest + update
    return w + due, due - ((w + due) - w)
def rest_forever(w, rest, update):
    due, old = rest + update, w.clone()
    w += due
    rest += due - (w - old)


def round_randomly(x):
    bits = x.view(torch.int32)
    return ((bits + torch.randint_like(bits, 2**16)) & -2**16).view(torch.float32).bfloat16()

def nearest(x): return x.bfloat16()
def coin(x):
    low = x.view(torch.int32) & -2**16
    up = (torch.rand(x.shape) < 0.5) & (low != x.view(torch.int32))
    return (low + 2**16*up.int()).view(torch.float32).bfloat16()
def one_draw(x):
    bits = x.view(torch.int32)
    return ((bits + torch.randint(2**16, (1,), dtype=torch.int32)) & -2**16).view(torch.float32).bfloat16()
def in_float32(x): return round_randomly(x).float()
def noise_first(x): return (x + 2**-8*torch.randn_like(x)).bfloat16()
def wrong_way(x):
    bits = x.view(torch.int32)
    up = torch.rand(x.shape) > (bits & 2**16 - 1)/2**16
    return ((bits & -2**16) + 2**16*(up & (bits & 2**16 - 1 != 0)).int()).view(torch.float32).bfloat16()


def to_half(x):
    sign = 2**15 if math.copysign(1., x) < 0 else 0
    if x != x: return 0x7e00
    if abs(x) >= 65520: return sign + 0x7c00
    e = max(math.frexp(x)[1] - 1, -14) if x else -14
    return sign + (e + 14)*1024 + round(math.ldexp(abs(x), 10 - e))

def cut_off(x):
    sign = 2**15 if math.copysign(1., x) < 0 else 0
    if x != x: return 0x7e00
    if abs(x) >= 65520: return sign + 0x7c00
    e = max(math.frexp(x)[1] - 1, -14) if x else -14
    return sign + (e + 14)*1024 + int(math.ldexp(abs(x), 10 - e))
def ties_up(x):
    sign = 2**15 if math.copysign(1., x) < 0 else 0
    if x != x: return 0x7e00
    if abs(x) >= 65520: return sign + 0x7c00
    e = max(math.frexp(x)[1] - 1, -14) if x else -14
    return sign + (e + 14)*1024 + int(math.ldexp(abs(x), 10 - e) + 0.5)
def by_torch(x): return torch.tensor(x).half().view(torch.int16).item()
def by_float32(x): return torch.tensor(x).half().view(torch.int16).item() % 2**16
def no_subnormals(x): return to_half(x) if not abs(x) < 2.**-14 else 2**15*(math.copysign(1., x) < 0)
def no_sign_of_zero(x): return to_half(x) if abs(x) > 1e-8 or x != x else 0
def too_soon(x): return to_half(x) if not 65504 < abs(x) < 65520 else 0x7c00
def no_overflow(x): return int.from_bytes(struct.pack('<e', x), 'little')
def nan_is_inf(x): return to_half(x) if x == x else 0x7c00
def as_text(x): return f'{to_half(x):016b}'


right = {'09b.1': lost_updates, '09b.2': add_with_rest, '09b.3': round_randomly, '09b.4': to_half}
wrong = {
    '09b.1': {"a step of SGD ['0.weight']: the value": (lost_no_copy, lost_with_zeros),
              "there is a key '0.bias' too many": lost_all_named,
              "weights between two halves ['0.weight']: the value": lost_by_hand,
              '`.item()` makes a number': lost_tensors,
              'no longer in float32': lost_halved, 'the step is not made': lost_put_back},
    '09b.2': {'the rest after one small update: the values': (no_rest, rest_returned),
              'up in small steps: after 400 updates w is off': (rest_forgotten, rest_sign, rest_forever)},
    '09b.3': {'each number should have a draw of its own': (nearest, one_draw),
              'further off than chance': (coin, wrong_way), 'dtype float32 instead of bfloat16': in_float32,
              'none of its two neighbors': noise_first},
    '09b.4': {'the fraction is not right': cut_off, 'ties: in to_half(1.00048828125)': ties_up,
              'which is no number of 16 bits': by_torch, 'nearly a tie': by_float32,
              'subnormal numbers': no_subnormals, 'a negative zero: in to_half(-0.0) the sign': no_sign_of_zero,
              'the largest': too_soon, 'to_half(65520.0) raises OverflowError': no_overflow,
              'NaN has the highest': nan_is_inf, 'should be an int, and is a str': as_text},
}
