"Checks of the exercises of chapter 06."
import math

import torch

from .core import Wrong, exercise, expect, raises, same


def follows(sched, want, what):
    "A schedule has these values (position -> value)."
    if not callable(sched): raise Wrong(f'{what}: it should give a schedule, a function of the position')
    for pos, value in want.items():
        got = sched(pos)
        got = got.item() if isinstance(got, torch.Tensor) else got
        same(got, float(value), f'{what}: at {pos:.3g} of the fit', tol=1e-5)
    return what


@exercise('06.1', hints=[
    'In which of the n parts is a position? Multiply by n and cut off the fraction; at the very end that is one '
    'too many.',
    'Equal factors: from the first part to the last there are n - 1 steps, and together they lead from start to end.',
    'With the decorator, the function you write takes (start, end, pos, n_steps), and what it makes takes the '
    'position only.'])
def sched_step(f):
    "A schedule that falls in equal factors."
    yield follows(f(1., 0.01), {0: 1, 0.2: 1, 0.4: 0.1, 0.6: 0.1, 0.7: 0.01, 0.95: 0.01}, 'three steps')
    yield follows(f(1., 0.01), {1: 0.01}, 'the end')
    yield follows(f(0.8, 0.1, n_steps=4), {0.1: 0.8, 0.3: 0.4, 0.6: 0.2, 0.8: 0.1, 1: 0.1}, 'four steps')
    yield follows(f(0.1, 10., n_steps=3), {0: 0.1, 0.5: 1, 1: 10}, 'upward')
    yield follows(f(3., 3., n_steps=2), {0: 3, 1: 3}, 'from 3 to 3')
    sched = f(1., 1e-4, n_steps=5)
    n = len({sched(i/997) for i in range(998)})
    yield expect(n == 5, 'five steps have five values', f'five steps have {n} values')


@exercise('06.2', hints=[
    'The lengths are 1, factor, factor**2, ... times the first, and have to add up to 1.',
    'Each fall is one schedule of this chapter, and `combine_scheds` puts them one after the other.',
    'With factor=1 all cycles are equal. The share of a cycle is its length over the sum of all lengths.'])
def sched_sgdr(f):
    "Ever longer falls along a cosine."
    def falls(lr, at): return {pos: lr/2*(1 + math.cos(math.pi*x)) for pos, x in at.items()}
    yield follows(f(0.3, 1), falls(0.3, {x: x for x in (0., 0.1, 0.25, 0.5, 0.8)}), 'one cycle')
    at = {0: 0, 0.25: 0.5, 0.4: 0.8, 0.5: 0, 0.75: 0.5, 0.9: 0.8}
    yield follows(f(1., 2, factor=1), falls(1., at), 'two equal cycles')
    at = {0: 0, 0.5/7: 0.5, 1.5/7: 0.25, 2/7: 0.5, 3.5/7: 1/8, 5/7: 0.5, 6.5/7: 7/8}
    yield follows(f(0.1, 3), falls(0.1, at), 'three cycles, each twice as long')
    yield follows(f(1., 2, factor=3), falls(1., {0.125: 0.5, 0.5: 1/3, 0.625: 0.5, 1: 1}), 'factor 3')


@exercise('06.3', hints=[
    'Three parts: up, flat, down. `create_phases` adds the last share, `combine_scheds` joins schedules.',
    'A schedule that stays where it is: there is one in this chapter. The share of the flat part is what the '
    'other two leave.',
    'With warm=0 the first part has no length, and position 0 is at the top already.'])
def trapezoid(f):
    "Up in a line, flat, down in a line."
    def at(lr, warm, cool):
        def height(pos): return pos/warm if pos < warm else 1. if pos <= 1 - cool else (1 - pos)/cool
        return {pos: lr*height(pos) for pos in (0., 0.05, 0.1, 0.4, 0.69, 0.75, 0.85, 1.)}
    yield follows(f(2.), at(2., 0.1, 0.3), 'the defaults')
    yield follows(f(0.01, warm=0.5, cool=0.25), at(0.01, 0.5, 0.25), 'half a warm-up')
    yield follows(f(1., warm=0.5, cool=0.5), {0.25: 0.5, 0.5: 1, 0.75: 0.5}, 'no flat part')
    yield follows(f(1., 0.2, 0.), {0: 0, 0.1: 0.5, 0.2: 1, 0.9: 1}, 'no fall')
    yield follows(f(1., warm=0.), {0: 1, 0.3: 1}, 'no warm-up')
    yield raises(ValueError, f, 1., 0.6, 0.6, what='more than a whole')
