"""Right and wrong answers to the exercises of chapter 09. `wrong` maps a part of the message to an answer that should
get it."""
import torch

from minidl.optim import StatefulOptimizer, decay_weights, l2_decay, sgd_step, stepper


def dampened(exp_avg, gs, mom): torch._foreach_lerp_(exp_avg, gs, 1-mom)

@stepper(keeps='exp_avg')
def honest_momentum(ps, gs, exp_avg, mom, step, **_):
    dampened(exp_avg, gs, mom)
    return torch._foreach_div(exp_avg, 1 - mom**step)

@stepper(keeps='exp_avg')
def biased(ps, gs, exp_avg, mom, step, **_):
    dampened(exp_avg, gs, mom)
    return exp_avg
@stepper(keeps='exp_avg')
def divides_its_memory(ps, gs, exp_avg, mom, step, **_):
    dampened(exp_avg, gs, mom)
    torch._foreach_div_(exp_avg, 1 - mom**step)
    return exp_avg
@stepper(keeps='exp_avg')
def step_from_zero(ps, gs, exp_avg, mom, step, **_):
    dampened(exp_avg, gs, mom)
    return torch._foreach_div(exp_avg, 1 - mom**(step + 1))
@stepper(keeps='exp_avg')
def a_sum(ps, gs, exp_avg, mom, step, **_):
    torch._foreach_mul_(exp_avg, mom)
    torch._foreach_add_(exp_avg, gs)
    return torch._foreach_div(exp_avg, 1 - mom**step)
@stepper(keeps='exp_avg')
def gives_nothing(ps, gs, exp_avg, mom, step, **_): dampened(exp_avg, gs, mom)
@stepper(keeps='exp_avg')
def moves_too(ps, gs, exp_avg, mom, step, lr, **_):
    dampened(exp_avg, gs, mom)
    torch._foreach_add_(ps, exp_avg, alpha=-lr)
    return torch._foreach_div(exp_avg, 1 - mom**step)
@stepper()
def keeps_nothing(ps, gs, exp_avg, mom, step, **_): return honest_momentum(ps, gs, exp_avg, mom, step)
def unmarked(ps, gs, exp_avg, mom, step, **_): return honest_momentum(ps, gs, exp_avg, mom, step)
@stepper(keeps='momentum_buffer')
def other_name(ps, gs, momentum_buffer, mom, step, **_): return honest_momentum(ps, gs, momentum_buffer, mom, step)
@stepper(keeps='exp_avg')
def greedy(ps, gs, exp_avg, mom, step): return honest_momentum(ps, gs, exp_avg, mom, step)


def centralize(ps, gs, **_):
    return [g - g.mean(tuple(range(1, g.ndim)), keepdim=True) if g.ndim > 1 else g for g in gs]

def over_all(ps, gs, **_): return [g - g.mean() if g.ndim > 1 else g for g in gs]
def over_the_first(ps, gs, **_): return [g - g.mean(0) if g.ndim > 1 else g for g in gs]
def no_keepdim(ps, gs, **_): return [g - g.mean(tuple(range(1, g.ndim))) if g.ndim > 1 else g for g in gs]
def biases_too(ps, gs, **_): return [g - g.mean(tuple(range(1, g.ndim)), keepdim=True) for g in gs]
def only_matrices(ps, gs, **_): return [g - g.mean(1, keepdim=True) if g.ndim == 2 else g for g in gs]
def in_place(ps, gs, **_):
    for g, c in zip(gs, centralize(ps, gs)): g.copy_(c)
    return gs
def nothing_back(ps, gs, **_): centralize(ps, gs)
def parameters(ps, gs, **_): return centralize(gs, ps)
def as_one(ps, gs, **_): return centralize(ps, gs)[0]


@stepper(keeps='sum')
def sum_sqr_grad(ps, gs, sum, **_): torch._foreach_addcmul_(sum, gs, gs)

@stepper()
def root_ratio(ps, gs, sum, eps, **_):
    size = torch._foreach_sqrt(sum)
    torch._foreach_add_(size, eps)
    return torch._foreach_div(gs, size)

class Adagrad(StatefulOptimizer):
    def __init__(self, params, lr, eps=1e-10):
        super().__init__(params, [sum_sqr_grad, root_ratio, sgd_step], lr=lr, eps=eps)

def of(*steps):
    class Made(StatefulOptimizer):
        def __init__(self, params, lr, eps=1e-10): super().__init__(params, steps, lr=lr, eps=eps)
    return Made

@stepper(keeps='sum')
def mean_sqr_grad(ps, gs, sum, step, **_):
    torch._foreach_mul_(sum, (step - 1)/step)
    torch._foreach_addcmul_(sum, gs, gs, 1/step)
@stepper(keeps='sum')
def sum_abs(ps, gs, sum, **_): torch._foreach_add_(sum, torch._foreach_abs(gs))
@stepper()
def eps_inside(ps, gs, sum, eps, **_): return torch._foreach_div(gs, [(s + eps).sqrt() for s in sum])
@stepper()
def no_root(ps, gs, sum, eps, **_): return torch._foreach_div(gs, [s + eps for s in sum])
@stepper()
def no_eps(ps, gs, sum, eps, **_): return torch._foreach_div(gs, torch._foreach_sqrt(sum))
@stepper()
def divides_in_vain(ps, gs, sum, eps, **_): torch._foreach_div(gs, torch._foreach_sqrt(sum))
MeanForSum = of(mean_sqr_grad, root_ratio, sgd_step)
AbsForSquare = of(sum_abs, root_ratio, sgd_step)
EpsInside = of(sum_sqr_grad, eps_inside, sgd_step)
NoRoot = of(sum_sqr_grad, no_root, sgd_step)
NoEps = of(sum_sqr_grad, no_eps, sgd_step)
InVain = of(sum_sqr_grad, divides_in_vain, sgd_step)
StaysThere = of(sum_sqr_grad, root_ratio)
class FixedLr(Adagrad):
    def __init__(self, params, lr, eps=1e-10):
        super().__init__(params, lr, eps)
        for group in self.param_groups: group['lr'] = lr
class NotAnOptimizer:
    def __init__(self, params, lr, eps=1e-10): self.params = list(params)


@stepper(keeps='exp_avg')
def lion_sign(ps, gs, exp_avg, mom, sqr_mom, **_):
    sign = torch._foreach_sign(torch._foreach_lerp(exp_avg, gs, 1-mom))
    torch._foreach_lerp_(exp_avg, gs, 1-sqr_mom)
    return sign

class Lion(StatefulOptimizer):
    def __init__(self, params, lr, betas=(0.9, 0.99), weight_decay=0.):
        super().__init__(params, self.made_of(), lr=lr, betas=betas, weight_decay=weight_decay)
    def made_of(self): return [decay_weights, lion_sign, sgd_step]

def lion_of(*steps):
    class Made(Lion):
        def made_of(self): return steps
    return Made

@stepper(keeps='exp_avg')
def updates_first(ps, gs, exp_avg, mom, sqr_mom, **_):
    torch._foreach_lerp_(exp_avg, gs, 1-sqr_mom)
    return torch._foreach_sign(torch._foreach_lerp(exp_avg, gs, 1-mom))
@stepper(keeps='exp_avg')
def swapped(ps, gs, exp_avg, mom, sqr_mom, **_): return lion_sign(ps, gs, exp_avg, sqr_mom, mom)
@stepper(keeps='exp_avg')
def one_beta(ps, gs, exp_avg, mom, **_): return lion_sign(ps, gs, exp_avg, mom, mom)
@stepper(keeps='exp_avg')
def no_sign(ps, gs, exp_avg, mom, sqr_mom, **_):
    out = torch._foreach_lerp(exp_avg, gs, 1-mom)
    torch._foreach_lerp_(exp_avg, gs, 1-sqr_mom)
    return out
@stepper(keeps='exp_avg')
def averages_itself(ps, gs, exp_avg, mom, sqr_mom, **_):
    torch._foreach_lerp_(exp_avg, gs, 1-mom)
    return torch._foreach_sign(exp_avg)
@stepper(keeps='exp_avg')
def overwrites(ps, gs, exp_avg, mom, sqr_mom, **_):
    sign = lion_sign(ps, gs, exp_avg, mom, sqr_mom)
    for g, s in zip(gs, sign): g.copy_(s)
    return gs
UpdatesFirst, Swapped, OneBeta, NoSign, Overwrites, AveragesItself = [
    lion_of(decay_weights, f, sgd_step)
    for f in (updates_first, swapped, one_beta, no_sign, overwrites, averages_itself)]
WithL2, NoDecay = lion_of(l2_decay, lion_sign, sgd_step), lion_of(lion_sign, sgd_step)
class FixedBetas(Lion):
    def __init__(self, params, lr, betas=(0.9, 0.99), weight_decay=0.):
        super().__init__(params, lr, weight_decay=weight_decay)


right = {'09.1': honest_momentum, '09.2': centralize, '09.3': Adagrad, '09.4': Lion}
wrong = {
    '09.1': {'step 1: the direction [0]: the values differ': (biased, step_from_zero, a_sum),
             'step 1: exp_avg [0]: the values differ': divides_its_memory, 'returns nothing': gives_nothing,
             'the parameters are changed': moves_too, 'keeps None': (unmarked, keeps_nothing),
             'wrong arguments': (greedy, other_name)},
    '09.2': {'a matrix [0]: the values differ': (over_all, over_the_first, no_keepdim, parameters),
             'with a bias among them [1]: the values': biases_too,
             'filters of a convolution [0]: the values': only_matrices,
             'changes its argument `gs[0]` in place': in_place, 'returns nothing': nothing_back,
             'instead of a list': as_one},
    '09.3': {'after one step: the values': (NoRoot, AbsForSquare, InVain, StaysThere),
             '50 steps [0]: the values': MeanForSum, 'a large eps: after one step: the values': (EpsInside, NoEps),
             'two groups: after one step: the values': FixedLr, 'derive it from `StatefulOptimizer`': NotAnOptimizer},
    '09.4': {'one step [0]: the values': NoSign,
             'thirty steps [0]: the values': (UpdatesFirst, Swapped, OneBeta, AveragesItself),
             'changed in place': Overwrites,
             'weight decay [0]: the values': (WithL2, NoDecay), 'other betas [0]: the values': FixedBetas},
}
