"""The frame of the exercises: what `check`, `hint` and `exercises` do, and what a chapter's checks are written with.

A check is a generator named as the reader's function. It calls that function, compares, and yields a few words for
everything that came out right; the comparisons raise `Wrong` with words for the reader:

    @exercise('02.1', hints=['Move one number at a time.', '...'])
    def numeric_grad(f):
        "The gradient by moving each number a little."
        x = torch.randn(3, 4, dtype=torch.float64)
        yield same(f(torch.sum, x), torch.ones_like(x), 'a sum')

Nothing is kept between two checks, in memory or on disk: whether an exercise is solved is asked of the answer itself.
"""
import difflib
import importlib
import inspect
import linecache
import math
import os
import pkgutil
import random
import sys
import sysconfig
import textwrap
from collections import ChainMap
from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ['check', 'hint', 'exercises', 'exercise', 'Wrong', 'same', 'same_grads', 'raises', 'expect']


# What a chapter's checks are written with

class Wrong(Exception):
    "What is wrong with an answer, in words for the reader."


@dataclass(frozen=True)
class Exercise:
    number:str     # '02.1': chapter, exercise
    run:Callable   # the check: takes the answer, yields what is right, raises `Wrong`
    hints:tuple
    inplace:bool   # may the answer change the tensors that it is called with?

    @property
    def name(self): return self.run.__name__
    @property
    def about(self): return inspect.getdoc(self.run)
    def __str__(self): return f'{self.number} {self.name}'


_exercises = {}   # number -> Exercise, filled as the chapters' files are imported


def exercise(
    number:str,      # chapter and exercise, '02.1' or '07a.2'
    hints=(),        # sentences, each saying more than the one before, none saying all
    inplace=False,   # True where the answer is meant to change its arguments
):                   # decorator of the check, which bears the name that the reader's function or class has to have
    "Make an exercise of a check."
    def note(run):
        if (old := _exercises.get(number)) and old.name != run.__name__:   # a reloaded module may come again
            raise ValueError(f'Exercise {number} is there already, as {old.name}. Give {run.__name__} another number.')
        _exercises[number] = Exercise(number, run, tuple(hints), inplace)
        return run
    return note


def _kind(x):
    "What something is, in a word or two: 'a tensor of shape (3, 4)', 'a list of 2', 'None'."
    if x is None: return 'None'
    if isinstance(x, Tensor): return f'a tensor of shape {tuple(x.shape)}'
    if isinstance(x, (list, tuple, dict, set)): return f'a {type(x).__name__} of {len(x)}'
    name = type(x).__name__
    return f"a{'n' if name[0] in 'aeiouAEIOU' else ''} {name}"


def _dtype(t): return str(t.dtype).removeprefix('torch.')


def _tolerance(dtype, tol):
    "Relative and absolute tolerance."
    if tol is not None: return tol, tol
    return {torch.float64: (1e-6, 1e-8), torch.float32: (1e-4, 1e-5)}.get(dtype, (1e-2, 1e-2))


def same(
    got,              # what the answer gave
    want,             # what it should be: a tensor, a number, or a tuple, list or dict of such
    what='',          # which case this is, in a few words
    tol:float=None,   # relative and absolute tolerance; by dtype if None
    dtype=True,       # compare dtypes of tensors too?
)->str:               # `what`
    "`got` is `want` in type, shape, dtype and value; raises `Wrong` without giving `want` away."
    def wrong(text): return Wrong(f'{what}: {text}' if what else text)
    if got is None and want is not None: raise wrong('gives None; is a `return` missing?')
    if isinstance(want, Tensor):
        if not isinstance(got, Tensor): raise wrong(f'gives {_kind(got)} instead of a tensor')
        if got.shape != want.shape: raise wrong(f'shape {tuple(got.shape)} instead of {tuple(want.shape)}')
        if dtype and got.dtype != want.dtype: raise wrong(f'dtype {_dtype(got)} instead of {_dtype(want)}')
        if text := _differs(got.detach(), want.detach(), tol): raise wrong(text)
    elif isinstance(want, (tuple, list)):
        if not isinstance(got, type(want)):
            raise wrong(f'gives {_kind(got)} instead of a {type(want).__name__}')
        if len(got) != len(want): raise wrong(f'gives {_kind(got)} instead of {len(want)}')
        for i, (g, w) in enumerate(zip(got, want)): same(g, w, f'{what} [{i}]'.lstrip(), tol, dtype)
    elif isinstance(want, dict):
        if not isinstance(got, dict): raise wrong(f'gives {_kind(got)} instead of a dict')
        if lacks := [k for k in want if k not in got]: raise wrong(f'the key {lacks[0]!r} is missing')
        if extra := [k for k in got if k not in want]: raise wrong(f'there is a key {extra[0]!r} too many')
        for k in want: same(got[k], want[k], f'{what} [{k!r}]'.lstrip(), tol, dtype)
    elif isinstance(want, (bool, int, float)):
        kinds = {bool: (bool,), int: (int,), float: (float, int)}[type(want)]
        if not isinstance(got, kinds) or (isinstance(got, bool) and type(want) is not bool):
            tip = ' (`.item()` makes a number of it)' if isinstance(got, Tensor) and got.numel() == 1 else ''
            raise wrong(f'gives {_kind(got)} instead of a{"n" if type(want) is int else ""} {type(want).__name__}{tip}')
        if type(want) is float:
            if text := _differs(torch.tensor(float(got)), torch.tensor(want), tol): raise wrong(text)
        elif got != want: raise wrong(f'gives {got}, which is not right')
    elif want is None and got is not None: raise wrong(f'gives {_kind(got)} instead of None')
    elif got != want: raise wrong(f'gives {_short(got)}, which is not right')
    return what


def _differs(got, want, tol):
    "How the values of two tensors of one shape differ, in words; None if they do not."
    if not want.numel(): return None
    if not (got.is_floating_point() or want.is_floating_point() or got.is_complex()):
        bad, size = got != want, None
    else:
        rtol, atol = _tolerance(want.dtype, tol)
        got, want = got.to(torch.float64), want.to(torch.float64)
        for name, test in ('NaN', torch.isnan), ('infinite', torch.isinf):
            if n := (test(got) & ~test(want)).sum().item():
                if not got.ndim: return f'the value is {name}'
                return f'{name} at {n} of {got.numel()} places{_place(test(got) & ~test(want))}'
        bad = ~torch.isclose(got, want, rtol=rtol, atol=atol, equal_nan=True)
        size = torch.where(bad, (got - want).abs().nan_to_num(math.inf), 0.)
    if not bad.any(): return None
    if got.ndim == 0: return 'the value is not right' + (f', off by {size:.2g}' if size is not None else '')
    places = f'the values differ at {bad.sum()} of {got.numel()} places'
    if size is None: return f'{places}, the first{_place(bad)}'
    if factor := _factor(got, want, bad): return f'{places}: all are {factor:.3g} times what is right'
    worst = (size*bad).nan_to_num(math.inf)
    return f'{places}, most{_place(worst == worst.max())}, by {worst.max():.2g}'


def _factor(got, want, bad):
    "`got` is how many times `want`? None if that differs, or if `want` is one number throughout."
    k, w = ((got*want).sum()/(want*want).sum()).item(), want[bad]
    if k == 0 or abs(k - 1) < 0.005 or not math.isfinite(k) or torch.allclose(w, w[0], 1e-3): return None
    return k if torch.allclose(got/k, want, 1e-3, 1e-5*want.abs().max().item()) else None


def _place(mask):
    "' at [1, 2]', the first true place of a mask."
    return f" at [{', '.join(map(str, mask.nonzero()[0].tolist()))}]" if mask.ndim else ''


def same_grads(
    f,                # the answer
    ref,              # a function that does the same
    *inputs,          # what both are called with; gradients are compared by the floating-point tensors among them
    what='',          # which case this is, in a few words
    tol:float=None,   # as for `same`
)->str:               # `what`
    "`f(*inputs)` is `ref(*inputs)`, and so are the gradients by all its inputs that can have one."
    def leaf(x): return x.detach().clone().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x
    ours, theirs = list(map(leaf, inputs)), list(map(leaf, inputs))
    out, want = f(*ours), ref(*theirs)
    same(out, want, what, tol)
    if not out.requires_grad:
        raise Wrong(f'{what}: the gradient is missing: the result is cut off from the input '
                    '(by .item(), .data, detach or no_grad?)')
    weights = torch.rand(want.shape, dtype=want.dtype) + 0.5
    pick = [i for i, x in enumerate(ours) if isinstance(x, Tensor) and x.requires_grad]
    got = torch.autograd.grad(out, [ours[i] for i in pick], weights, allow_unused=True)
    should = torch.autograd.grad(want, [theirs[i] for i in pick], weights, allow_unused=True)
    for i, g, s in zip(pick, got, should):
        if s is None: continue
        case = f'{what}: the gradient' + (f' by argument {i + 1}' if len(pick) > 1 else '')
        if g is None: raise Wrong(f'{case} is missing: the result does not depend on it')
        same(g, s, case, tol)
    return what


def raises(
    error:type,   # the exception that is due
    f,            # the answer
    *args,        # what it is called with
    what='',      # which case this is, in a few words
    **kwargs,
)->str:           # `what`
    "`f(*args)` raises `error`, with a message."
    try: f(*args, **kwargs)
    except (Wrong, NotImplementedError): raise
    except error as e:
        if not str(e).strip():
            raise Wrong(f'{what}: the {error.__name__} comes without a message; say what was wrong') from e
    except Exception as e: raise Wrong(f'{what}: raises {type(e).__name__} instead of {error.__name__}') from e
    else: raise Wrong(f'{what}: raises nothing, where a {error.__name__} is due')
    return what


def expect(
    ok,           # what should be true
    what:str,     # what is right then, in a few words
    wrong:str,    # the sentence for the reader if it is not
)->str:           # `what`
    "Anything else that should hold."
    if not ok: raise Wrong(wrong)
    return what


# The reader's function, watched

def _tensors(x, name):
    "All tensors in an argument, with a name for each: those in lists, tuples, dicts and modules too."
    if isinstance(x, Tensor): yield name, x
    elif isinstance(x, (list, tuple)):
        for i, y in enumerate(x): yield from _tensors(y, f'{name}[{i}]')
    elif isinstance(x, Mapping):
        for k, y in x.items(): yield from _tensors(y, f'{name}[{k!r}]')
    elif isinstance(x, nn.Module):
        for k, t in [*x.named_parameters(), *x.named_buffers()]: yield f'{name}.{k}', t


def _plain(x):
    "Can a function be called with this a second time, as if for the first?"
    if isinstance(x, (list, tuple)): return all(map(_plain, x))
    if isinstance(x, dict): return all(map(_plain, x.values()))
    return x is None or isinstance(x, (Tensor, int, float, str, bytes, Path, torch.dtype)) or inspect.isroutine(x)


def _copy(x):
    if isinstance(x, Tensor): return x.detach().clone()
    if isinstance(x, (list, tuple)): return [_copy(y) for y in x]
    if isinstance(x, dict): return {k: _copy(y) for k, y in x.items()}
    return x


def _alike(a, b):
    "Are two results of the same call the same? But for rounding, which depends on where in memory numbers lie."
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape != b.shape or a.dtype != b.dtype: return False
        return torch.allclose(a.double(), b.double(), 1e-3, 1e-5, equal_nan=True)
    if isinstance(a, list) and isinstance(b, list): return len(a) == len(b) and all(map(_alike, a, b))
    if isinstance(a, dict) and isinstance(b, dict): return a.keys() == b.keys() and all(_alike(a[k], b[k]) for k in a)
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return a == b or (a != a and b != b) or math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-5)
    return a == b if isinstance(a, str) and isinstance(b, str) else type(a) is type(b)


def _untouched(t, was):
    "Is a tensor, to the bit, what it was?"
    return t.shape == was.shape and bool(((t.detach() == was) | ((was != was) & (t.detach() != t.detach()))).all())


def _short(x):
    "An argument in a few characters."
    if isinstance(x, Tensor):
        if x.ndim == 0: return f'tensor({x.item():.3g})'
        return f"{_dtype(x)} ({', '.join(map(str, x.shape))}{',' if x.ndim == 1 else ''})"
    if inspect.isroutine(x) or isinstance(x, type): return x.__name__
    if isinstance(x, (int, float, str, tuple, list, type(None))) and len(repr(x)) < 40: return repr(x)
    return _kind(x)


class Answer:
    "The reader's function or class; calling it also looks whether it changes its arguments and answers twice the same."
    def __init__(self, ex, f):
        self.ex, self.f, self.repeat = ex, f, not isinstance(f, type)
        self.call = None   # the call in progress, in words

    def __call__(self, *args, **kwargs):
        shown = [_short(a) for a in args] + [f'{k}={_short(a)}' for k, a in kwargs.items()]
        self.call = f"{self.ex.name}({', '.join(shown)})"
        try: signature = inspect.signature(self.f)
        except (TypeError, ValueError): named = {f'argument {i}': a for i, a in enumerate(args, 1)} | kwargs
        else:
            try: named = signature.bind(*args, **kwargs).arguments
            except TypeError as e:
                text = f'{self.ex.name}{signature} cannot be called as {self.call} ({e})'
                raise Wrong(f'wrong arguments: {text}') from None
        before = [(name, t, t.detach().clone()) for key, a in named.items() for name, t in _tensors(a, key)]
        repeat = self.repeat and not self.ex.inplace and _plain(args) and _plain(kwargs)
        rng = torch.get_rng_state(), random.getstate(), np.random.get_state()
        out = self.f(*args, **kwargs)
        if not self.ex.inplace:
            for name, t, was in before:
                if not _untouched(t, was):
                    raise Wrong(f'changes its argument `{name}` in place; work on a copy, or make a new tensor')
        if repeat:   # once is enough
            self.repeat, first = False, _copy(out)
            torch.set_rng_state(rng[0]); random.setstate(rng[1]); np.random.set_state(rng[2])
            if not _alike(first, _copy(self.f(*args, **kwargs))):
                raise Wrong('a second call with the same arguments gives another result; '
                            'does it keep something between calls?')
        self.call = None
        return out

    def __getattr__(self, name): return getattr(self.f, name)


# What the reader calls

@dataclass(frozen=True)
class Result:
    "How an answer fared. It shows itself as text, and is true if the answer is right."
    state:str    # 'right', 'still to do', 'not right yet' or 'unknown'
    text:str
    def __bool__(self): return self.state == 'right'
    def __repr__(self): return self.text


class Text(str):
    "Text that shows itself as it is, without quotes."
    def __repr__(self): return str(self)


def _fill(text, first='', then=''):
    return textwrap.fill(text, 110, initial_indent=first, subsequent_indent=then, break_long_words=False)


def _result(ex, state, detail='', passed=()):
    head = f'{ex}: {state}'
    if state == 'right': return Result(state, _fill(f"{head} ({'; '.join(passed)})" if passed else head, then='  '))
    lines = [head]
    if passed: lines.append(_fill('; '.join(passed), '  right: ', '         '))
    if detail: lines.append(_fill(detail, '  wrong: ' if state == 'not right yet' else '  ', '         '))
    return Result(state, '\n'.join(lines))


@contextmanager
def _as_it_was():
    "Random states, default dtype, device and grad mode are fixed inside, and afterwards as they were."
    learner, loaded = sys.modules.get('minidl.learner'), set(sys.modules)
    registered = dict(learner.REGISTRY) if learner else {}
    py, np_state, dtype = random.getstate(), np.random.get_state(), torch.get_default_dtype()
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    try:
        with ExitStack() as stack:
            for setting in torch.random.fork_rng(cuda), torch.inference_mode(False), torch.enable_grad():
                stack.enter_context(setting)
            if torch.get_default_device().type != 'cpu': stack.enter_context(torch.device('cpu'))
            torch.set_default_dtype(torch.float32)
            torch.manual_seed(0); random.seed(0); np.random.seed(0)
            yield
    finally:
        if learner:                         # in place of a notebook's own classes there are those of its module now
            learner.REGISTRY.clear()
            learner.REGISTRY.update(registered)
        for name in set(sys.modules) - loaded:      # so whoever imports that module himself registers them again
            if not name.startswith('minidl.') or name.startswith('minidl.exercises'): continue
            package, _, short = name.rpartition('.')
            del sys.modules[name]
            vars(sys.modules[package]).pop(short, None)     # where `from minidl import awd_lstm` would still find it
        torch.set_default_dtype(dtype)
        random.setstate(py)
        np.random.set_state(np_state)


_LIBRARIES = [sysconfig.get_path(kind) for kind in ('stdlib', 'purelib', 'platlib')]
_NOT_THE_READERS = tuple(str(Path(folder).resolve()) + os.sep for folder in (
    Path(__file__).parent.parent, Path(torch.__file__).parent, *_LIBRARIES))

def _readers(file):
    "Is a file the reader's own, and not of minidl, torch or another library?"
    return not file.startswith('<frozen') and not str(Path(file).resolve()).startswith(_NOT_THE_READERS)


def _raised(e, answer):
    "State and words for an exception that an answer, or the check on account of it, raised."
    steps, tb = [], e.__traceback__
    while tb:
        steps.append((tb.tb_frame, tb.tb_lineno)); tb = tb.tb_next
    theirs = [s for s in steps if _readers(s[0].f_code.co_filename)]
    message = f'{type(e).__name__}' + (f': {str(e).splitlines()[0]}' if str(e).strip() else '')
    if not theirs: return 'not right yet', f'the check cannot go on with what {answer.ex.name} gives ({message})'
    frame, line = theirs[-1]
    if isinstance(e, NotImplementedError) and not e.args and steps[-1][0] is frame:
        where = frame.f_code.co_name
        return 'still to do', '' if where in (answer.ex.name, '__init__') else f'`{where}` is not written yet'
    source = linecache.getline(frame.f_code.co_filename, line).strip()
    who = answer.call or f'`{frame.f_code.co_name}`'
    unknown = '. Have the cells above been run, from the top?' if isinstance(e, NameError) else ''
    return 'not right yet', f'{who} raises {message}, line {line}' + (f': {source}' if source else '') + unknown


def _run(ex, f):
    if not callable(f): return _result(ex, 'not right yet', f'`{ex.name}` is {_kind(f)}, which cannot be called')
    if ex.name[0].isupper() and not isinstance(f, type):
        return _result(ex, 'not right yet', f'`{ex.name}` should be a class and is {_kind(f)}')
    answer, passed = Answer(ex, f), []
    try:
        with _as_it_was():
            for what in ex.run(answer) or (): passed.append(what)
    except Wrong as e: return _result(ex, 'not right yet', str(e), passed)
    except Exception as e:   # Ctrl-C is none of these and goes through
        if isinstance(e.__cause__, StopIteration): e = e.__cause__   # a generator, the check, turns it into another
        state, text = _raised(e, answer)
        return _result(ex, state, text, passed)
    return _result(ex, 'right', passed=passed)


def _load(chapter=None):
    "Import the exercises of one chapter, or all."
    for m in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if m.name.startswith('ch') and chapter in (None, m.name[2:]): importlib.import_module(f'{__package__}.{m.name}')


def _is_answer(x):
    "Is this what a reader wrote? A number that a loop left, a layer and what a library exports only share its name."
    if inspect.isroutine(x) or isinstance(x, type):
        module = getattr(x, '__module__', None)
        file = getattr(sys.modules.get(module), '__file__', None)
        return module == '__main__' or not file or _readers(file)
    return callable(x) and not isinstance(x, nn.Module)   # `functools.partial`, a scripted function


def _two_digits(number):
    "'02.1' for '2.1' and 2.1, '07a' for '7a'."
    number = str(number)
    return '0' + number if number[:1].isdigit() and not number[1:2].isdigit() else number


def _order(number):
    chapter, _, n = number.partition('.')
    return chapter, int(n) if n.isdigit() else 0


def _find(number):
    "The exercise, or a sentence that there is none."
    number = _two_digits(number)
    chapter = number.split('.')[0]
    _load(chapter)
    if ex := _exercises.get(number): return ex
    if ours := sorted((n for n in _exercises if _order(n)[0] == chapter), key=_order):
        return (f'There is no exercise {number!r} that checks itself. Those of chapter {chapter} that do are '
                f"{', '.join(ours)}; open ones have no check and no hints.")
    _load()
    near = difflib.get_close_matches(number, _exercises, 3, 0.5) or sorted(_exercises, key=_order)[:3]
    near = ', '.join(f"'{n}' ({_exercises[n].name})" for n in sorted(near, key=_order))
    return f'There is no exercise {number!r} that checks itself. The nearest are {near}.'


class _Missing:
    "Instead of an answer, where none is handed over."
    def __repr__(self): return '<what bears its name>'

_MISSING = _Missing()


def check(
    number:str=None,     # which exercise, '02.1'; without it, the state of all whose function is there
    answer=_MISSING,     # your function or class; without it, what bears its name where `check` is called
)->Result:               # shows itself; true if the answer is right
    """Run your answer on small inputs and say what is right and what is not. Does not raise for a wrong answer. What is
    at [0] or [1] is the first or second of what your function returned."""
    frame = sys._getframe(1)
    space = ChainMap(frame.f_locals, frame.f_globals)
    if number is None: return _list(space)
    if isinstance(ex := _find(number), str): return Result('unknown', _fill(ex))
    if answer is _MISSING: answer = space.get(ex.name, _MISSING)
    if answer is _MISSING:
        return _result(ex, 'still to do', f'there is no `{ex.name}` yet; the exercise says what it should do')
    return _run(ex, answer)


def hint(
    number:str,   # which exercise, '02.1'
    n:int=1,      # the first hint, the second, ...
)->Text:          # shows itself
    "The `n`-th hint of an exercise; each says more than the one before."
    if isinstance(ex := _find(number), str): return Text(_fill(ex))
    count = {0: 'there are no hints', 1: 'there is one hint'}.get(len(ex.hints), f'there are {len(ex.hints)} hints')
    if n > len(ex.hints): return Text(f"{ex}: {count}{', no more' if ex.hints else ''}.")
    if n < 1: return Text(f'{ex}: hints are counted from 1; {count}.')
    left = f" (hint('{ex.number}', {n + 1}) says more)" if n < len(ex.hints) else ' (the last hint)'
    return Text(_fill(f'{ex}: {ex.hints[n - 1]}{left}', then='  '))


def exercises(
    chapter:str=None,   # '02', '07a'; without it, the chapters whose functions are there
)->Text:                # shows itself
    "The exercises that check themselves, and how your answers stand."
    frame = sys._getframe(1)
    return _list(ChainMap(frame.f_locals, frame.f_globals), chapter)


def _list(space, chapter=None):
    _load()
    chapters = sorted({_order(n)[0] for n in _exercises})
    there = {n for n, ex in _exercises.items() if _is_answer(space.get(ex.name))}
    wanted = {_order(n)[0] for n in there} if chapter is None else {_two_digits(chapter)} & set(chapters)
    if not wanted:
        why = 'No answer is here yet.' if chapter is None else f'Chapter {chapter!r} has none that check themselves.'
        return Text(_fill(f"{why} There are exercises in chapters {', '.join(chapters)}; "
                          f"exercises('{chapters[0]}') lists those of one."))
    lines = []
    for n in sorted(_exercises, key=_order):
        ex = _exercises[n]
        if _order(n)[0] not in wanted: continue
        state = _run(ex, space[ex.name]).state if n in there else 'still to do'
        lines.append(f'{n:6} {ex.name:22} {state:14} {ex.about}')
    return Text('\n'.join(lines))
