"Exercises: every check passes a right answer, fails wrong ones with the words they should get, and touches nothing."
import functools
import importlib.util
import inspect
import linecache
import random
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from minidl.exercises import check, core, exercises, hint
from minidl.exercises.core import Wrong, exercise, expect, raises, same, same_grads

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = {p.stem.split('_')[0]: p for p in sorted((ROOT/'nbs').glob('[0-9]*.ipynb'))}
core._load()
ALL = dict(core._exercises)


def solutions(chapter):
    "The module tests/solutions/chNN.py; cached, since its classes are compared by nothing but their names."
    path = ROOT/'tests'/'solutions'/f'ch{chapter}.py'
    spec = importlib.util.spec_from_file_location(f'solutions_{chapter}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SOLVED = {p.stem[2:]: solutions(p.stem[2:]) for p in sorted((ROOT/'tests'/'solutions').glob('ch*.py'))}
RIGHT = [(n, f) for m in SOLVED.values() for n, f in m.right.items()]
WRONG = [(n, part, f) for m in SOLVED.values() for n, answers in m.wrong.items() for part, fs in answers.items()
         for f in (fs if isinstance(fs, tuple) else [fs])]


def squeeze(result): return ' '.join(str(result).split())


# The exercises

@pytest.mark.parametrize('number, f', RIGHT, ids=[n for n, _ in RIGHT])
def test_the_right_answer_is_right_and_draws_from_no_global_generator(number, f):
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    result = check(number, f)
    assert result, result
    assert result.state == 'right' and squeeze(result).startswith(f'{number} {ALL[number].name}: right')
    drawn = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    assert drawn == (torch.rand(1), np.random.rand(), random.random())


@pytest.mark.parametrize('number, part, f', WRONG, ids=[f'{n} {f.__name__}' for n, _, f in WRONG])
def test_a_wrong_answer_is_told_what_is_wrong(number, part, f):
    result = check(number, f)
    assert not result
    assert part in squeeze(result), result
    assert 'the check cannot go on' not in squeeze(result), result


def test_every_exercise_has_a_right_answer_and_two_wrong_ones_of_its_own():
    assert {n for n, _ in RIGHT} == set(ALL)
    for number in ALL:
        assert len({f for n, _, f in WRONG if n == number}) >= 2, number


def test_the_answers_bear_the_name_that_the_exercise_asks_for():
    for number, f in RIGHT: assert f.__name__ == ALL[number].name, number


@pytest.mark.parametrize('number', ALL)
def test_an_exercise_says_what_it_is_about_and_has_hints_that_do_not_give_it_away(number):
    ex = ALL[number]
    assert ex.about and len(ex.about) < 90 and '\n' not in ex.about
    assert 2 <= len(ex.hints) <= 4
    m = SOLVED[number.split('.')[0]]
    lines = [l.strip()
             for l in (ROOT/'tests'/'solutions'/Path(m.__file__).name).read_text(encoding='utf-8').splitlines()]
    code = {re.sub(r'\s', '', l.removeprefix('return '))
            for l in lines if len(l) > 25 and not l.startswith(('def ', 'class ', 'import ', 'from '))}
    for text in ex.hints:
        assert 20 < len(text) < 300 and text[-1] in '.?!', text
        assert not [c for c in code if c in re.sub(r'\s', '', text)], text


def stubs(cells):
    "For each exercise number of a chapter: the source of the cell that checks it, and the text that is saved under it."
    found = {}
    for cell in cells:
        if cell.cell_type != 'code': continue
        for number in re.findall(r"check\('([^']*)'", cell.source):
            out = ''.join(o.get('text', '') or o.get('data', {}).get('text/plain', '') for o in cell.outputs)
            assert number not in found, f'{number} is checked twice'
            found[number] = cell.source, out
    return found


@pytest.mark.parametrize('chapter', CHAPTERS)
def test_a_chapter_states_its_exercises_with_a_stub_and_a_check(chapter):
    cells = nbformat.read(CHAPTERS[chapter], as_version=4).cells
    code = '\n'.join(c.source for c in cells if c.cell_type == 'code')
    found = stubs(cells)
    ours = {n for n in ALL if n.split('.')[0] == chapter}
    assert set(found) == ours
    if not ours: pytest.skip('no exercises that check themselves')
    assert len(ours) >= 2
    for number, (source, out) in found.items():
        name = ALL[number].name
        assert re.search(rf'^(def|class) {name}\b.*\n    "', code,
                         re.M), f'{number}: no stub with a docstring for {name}'
        assert 'NotImplementedError' in source, number
        assert out.startswith(f'{number} {name}: still to do'), out
    text = '\n'.join(c.source for c in cells if c.cell_type == 'markdown')
    text = text[text.index('## Exercises'):]
    numbers = re.findall(rf'^\*\*({chapter}\.\d+) ', text, re.M)
    assert numbers == [f'{chapter}.{i}' for i in range(1, len(numbers) + 1)]
    assert 3 <= len(numbers) <= 6 and ours <= set(numbers)
    for number in re.findall(r"(?:check|hint)\('(\w+\.\d+)'", text): assert number in ALL, number


def test_no_exercise_bears_the_name_of_another_or_of_something_that_minidl_exports():
    import minidl.all
    names = [ex.name for ex in ALL.values()]
    assert len(names) == len(set(names))
    assert not [n for n in names if hasattr(minidl.all, n)]


# The frame

@pytest.fixture
def ex():
    "Adds an exercise for one test: ex(run, **kwargs) gives its number."
    made = []
    def make(run, **kwargs):
        made.append(f'99.{len(made) + 1}')
        exercise(made[-1], **kwargs)(run)
        return made[-1]
    yield make
    for n in made: del core._exercises[n]


def double(f):
    "Twice as much."
    yield same(f(torch.arange(6.).view(2, 3)), 2*torch.arange(6.).view(2, 3), 'a matrix')


def said(number, f): return squeeze(check(number, f))


def test_the_answer_is_found_by_its_name_where_check_is_called(ex):
    n = ex(double)
    space = {'check': check}
    exec(f'r = check({n!r})', space)
    assert space['r'].state == 'still to do' and 'there is no `double` yet' in str(space['r'])
    exec(f'def double(x): raise NotImplementedError\nr = check({n!r})', space)
    assert str(space['r']) == f'{n} double: still to do'
    exec(f'def double(x): return 2*x\nr = check({n!r})', space)
    assert space['r'] and str(space['r']) == f'{n} double: right (a matrix)'
    def inside():
        double = 3
        return check(n)
    assert 'cannot be called' in str(inside()) and not inside()


def test_each_kind_of_fault_gets_its_words(ex):
    n = ex(double)
    assert "`double` is an int, which cannot be called" in said(n, 3)
    assert 'wrong arguments: double(x, y) cannot be called as double(float32 (2, 3))' in said(n, lambda x, y: x)
    assert 'shape (3,) instead of (2, 3)' in said(n, lambda x: 2*x[0])
    assert 'dtype float64 instead of float32' in said(n, lambda x: 2*x.double())
    assert 'gives a list of 2 instead of a tensor' in said(n, lambda x: x.tolist())
    assert 'is a `return` missing?' in said(n, lambda x: None)
    assert 'the values differ at 4 of 6 places, most at [1, 2], by 15' in said(n, lambda x: x*x)
    assert 'the values differ at 5 of 6 places: all are 0.5 times what is right' in said(n, lambda x: x)
    assert 'NaN at 1 of 6 places at [0, 0]' in said(n, lambda x: 2*x*x/x)
    assert 'infinite at 1 of 6 places at [0, 0]' in said(n, lambda x: torch.where(x == 0, torch.inf, 2*x))
    assert 'changes its argument `x` in place' in said(n, lambda x: x.mul_(2))


def test_an_exception_is_told_with_the_line_of_the_reader(ex):
    n = ex(double)
    source = 'def double(x):\n    y = x + 1\n    return y[7]\n'
    linecache.cache['cell 3'] = len(source), None, source.splitlines(True), 'cell 3'
    space = {}
    exec(compile(source, 'cell 3', 'exec'), space)
    text = said(n, space['double'])
    assert 'double(float32 (2, 3)) raises IndexError: index 7 is out of bounds' in text
    assert 'line 3: return y[7]' in text
    assert str(ROOT) not in text

    def runs_out(x): return next(iter([]))
    assert 'raises StopIteration' in said(n, runs_out)
    def recurses(x): return recurses(x)
    assert 'raises RecursionError' in said(n, recurses)
    def not_for_this(x): raise NotImplementedError('no matrices')
    assert 'raises NotImplementedError: no matrices' in said(n, not_for_this)


def test_what_is_kept_between_calls_is_found(ex):
    n = ex(double)
    calls = []
    def grows(x):
        calls.append(1)
        return x + x*len(calls)
    assert 'a second call with the same arguments gives another result' in said(n, grows)


def test_an_argument_in_a_list_or_a_module_is_watched_too(ex):
    def first(f):
        "The first."
        yield same(f([torch.ones(2), torch.zeros(2)]), torch.ones(2), 'a list')
        yield same(f([torch.nn.Linear(2, 2).weight]).detach().shape, (2, 2), 'a parameter')
    n = ex(first)
    assert check(n, lambda xs: xs[0])
    def spoils(xs):
        xs[1] += 1
        return xs[0]
    assert 'changes its argument `xs[1]` in place' in said(n, spoils)
    def module(f):
        "The bias."
        f(torch.nn.Linear(2, 2))
        yield 'a layer'
    def zeroes(layer):
        with torch.no_grad(): layer.weight.zero_()
    assert 'changes its argument `layer.weight` in place' in said(ex(module), zeroes)
    assert check(ex(module, inplace=True), zeroes)


def test_gradients_are_compared():
    x = torch.randn(3, 2)
    w = torch.randn(2, 4)
    assert same_grads(lambda a, b: torch.einsum('ij,jk->ik', a, b), torch.matmul, x, w, what='product') == 'product'
    def fails(f, *inputs, ref=torch.exp):
        with pytest.raises(Wrong) as e: same_grads(f, ref, *inputs, what='case')
        return str(e.value)
    assert 'case: the gradient is missing' in fails(lambda a: a.detach().exp(), x)
    assert 'case: the gradient: the values differ' in fails(lambda a: a.exp().detach() + 0*a, x)
    assert 'by argument 2 is missing' in fails(lambda a, b: a @ b.detach(), x, w, ref=torch.matmul)
    assert 'case: the values differ' in fails(lambda a: a, x)


def test_values_of_all_kinds_are_compared():
    same((1, 'a', None, [True]), (1, 'a', None, [True]))
    same({'a': 1.}, {'a': 1.})
    same(2, 2.)
    for got, want, part in [(torch.tensor(2.), 2., 'instead of a float (`.item()`'),
                            (2., 2, 'a float instead of an int'), (True, 1, 'a bool instead of an int'),
                            ([1], (1,), 'a list of 1 instead of a tuple'), ((1, 2), (1,), 'a tuple of 2 instead of 1'),
                            ({}, {'a': 1}, "the key 'a' is missing"),
                            ({'a': 1, 'b': 2}, {'a': 1}, "key 'b' too many"), (3, None, 'an int instead of None'),
                            ('x', 'y', "gives 'x', which is not right"),
                            (float('nan'), 1., 'the value is NaN'),
                            (torch.tensor([1, 2]), torch.tensor([1, 3]), 'differ at 1 of 2 places, the first at [1]'),
                            (torch.tensor([1.]), torch.tensor([1]), 'dtype float32 instead of int64')]:
        with pytest.raises(Wrong) as e: same(got, want, 'x')
        assert part in str(e.value), (got, want, str(e.value))
    with pytest.raises(Wrong, match='no such thing'): expect(False, 'right', 'no such thing')


def test_values_off_by_one_factor_are_told_it_and_others_are_not():
    def fails(got, want, **kwargs):
        with pytest.raises(Wrong) as e: same(torch.as_tensor(got), torch.as_tensor(want), **kwargs)
        return str(e.value)
    torch.manual_seed(0)
    want = torch.randn(4, 3)
    for k in 2, 0.9, -1, 1/3: assert fails(k*want, want).endswith(f'places: all are {k:.3g} times what is right')
    assert 'all are 2 times' in fails(2*want.half(), want.half())
    assert 'all are 3 times' in fails([0., 3., -3.], [0., 1., -1.])
    for got, want in [(want*1.001, want), (0*want, want), (want, 0*want), (want.exp(), want), (want + 1, want),
                      ([6., 6.], [2., 2.]), ([0., 0., 6.], [0., 0., 2.]), ([1., 4., 6.], [0., 2., 3.]), (4., 2.),
                      ([2, 4], [1, 2]), ([torch.inf, 4.], [torch.inf, 2.]), ([torch.nan, 4.], [torch.nan, 2.])]:
        assert 'times' not in fails(got, want), (got, want)
    small = 1e-6*torch.randn(4, 3).double()
    assert 'all are 2 times' in fails(2*small, small) and 'times' not in fails(small.flip(0), small)
    assert 'times' not in fails(2*torch.linspace(1, 1.3, 9).flip(0), torch.linspace(1, 1.3, 9), tol=0.1)


def test_exceptions_that_are_due_are_asked_for():
    def fails(f):
        with pytest.raises(Wrong) as e: raises(ValueError, f, what='case')
        return str(e.value)
    def throw(e):
        def f(): raise e
        return f
    assert raises(ValueError, throw(ValueError('n is 3')), what='case') == 'case'
    assert 'raises nothing, where a ValueError is due' in fails(lambda: 3)
    assert 'raises KeyError instead of ValueError' in fails(throw(KeyError('a')))
    assert 'without a message' in fails(throw(ValueError()))
    with pytest.raises(NotImplementedError): raises(ValueError, throw(NotImplementedError()))


def test_a_message_does_not_show_the_values_that_are_expected(ex):
    secret = torch.tensor([3.14159, 2.71828, 1.41421, 0.57721])
    def constants(f):
        "Some constants."
        yield same(f(), secret, 'constants')
    n = ex(constants)
    for wrong in torch.zeros(4), torch.zeros(3), torch.zeros(4, 1), secret.double(), [1.], None:
        text = said(n, lambda: wrong)
        assert sum(str(v)[:4] in text for v in secret.tolist()) <= 1, text


AFRESH = """
import sys
import minidl
from minidl.exercises import check
from minidl.exercises.core import exercise, same
import torch, numpy as np

@exercise('99.9')
def drawn(f):
    "Numbers."
    yield same(f(3).shape, (3,), 'a shape')

print(check('99.9', lambda n: torch.from_numpy(np.random.rand(n))))
def perplexity_of(model, ids, bptt): return 1.
check('12.3', perplexity_of)
assert not hasattr(minidl, 'awd_lstm')
from minidl import awd_lstm
import minidl.awd_lstm
print(awd_lstm is sys.modules['minidl.awd_lstm'] is minidl.awd_lstm)
"""

def test_in_a_new_process_numpys_chance_is_fixed_and_no_module_is_left_behind():
    out = subprocess.run([sys.executable, '-c', AFRESH], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ['99.9 drawn: right (a shape)', 'True']


def test_random_state_default_dtype_and_grad_mode_are_left_alone(ex):
    def meddles(x):
        torch.manual_seed(7), np.random.seed(7), random.seed(7), torch.rand(3), np.random.rand(), random.random()
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        return 2*x
    n = ex(double)
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    want = torch.rand(1), np.random.rand(), random.random()
    for f in meddles, lambda x: 2*x, lambda x: 1/0:
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        torch.set_default_dtype(torch.float16)
        try:
            with torch.no_grad():
                check(n, f)
                assert not torch.is_grad_enabled()
            assert torch.get_default_dtype() == torch.float16 and torch.is_grad_enabled()
        finally: torch.set_default_dtype(torch.float32)
        assert (torch.rand(1), np.random.rand(), random.random()) == want


def test_a_check_finds_the_same_settings_wherever_it_is_called(ex):
    def settings(f):
        "What holds inside."
        yield expect(torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32
                     and not torch.is_inference_mode_enabled(), 'settings', 'other settings')
        yield same_grads(f, torch.exp, torch.randn(3), what='gradient')
    n = ex(settings)
    with torch.inference_mode(): assert check(n, lambda x: x.exp())
    torch.set_default_dtype(torch.float64)
    try: assert check(n, lambda x: x.exp())
    finally: torch.set_default_dtype(torch.float32)


def test_an_endless_loop_can_be_interrupted(ex):
    def loops(x):
        while True: pass
    def interrupt(*_): raise KeyboardInterrupt
    n = ex(double)
    old = signal.signal(signal.SIGALRM, interrupt)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt): check(n, loops)
    finally: signal.signal(signal.SIGALRM, old)
    assert torch.equal(torch.get_rng_state(), state) and torch.is_grad_enabled()


def test_hints_come_one_by_one(ex):
    n = ex(double, hints=['Think of addition.', 'Add it to itself.'])
    assert squeeze(hint(n)) == f"{n} double: Think of addition. (hint('{n}', 2) says more)"
    assert squeeze(hint(n, 2)) == f'{n} double: Add it to itself. (the last hint)'
    assert str(hint(n, 3)) == f'{n} double: there are 2 hints, no more.'
    assert 'counted from 1' in hint(n, 0) and repr(hint(n)) == str(hint(n))
    def triple(f): yield 'x'
    assert str(hint(ex(triple))).endswith('there are no hints.')


def test_a_number_that_is_not_there_gets_the_nearest():
    for number in '02.9', '2.9', 'numeric_grad', '77.1', '', None:
        if number is not None:
            result = check(number, abs)
            assert not result and result.state == 'unknown'
            assert "There is no exercise" in result.text and "'" in result.text
        assert 'There is no exercise' in hint(number)
    assert "The nearest are" in squeeze(check('77.1'))


def test_a_number_without_a_check_gets_those_of_its_chapter_that_have_one():
    for number in '02.4', '2.4', 2.4, '02':
        text = squeeze(check(number, abs))
        assert 'Those of chapter 02 that do are 02.1, 02.2, 02.3, 02.5; open ones have no check' in text
        assert squeeze(hint(number)) == text


def test_a_number_may_lack_its_leading_zero():
    for number in '2.1', 2.1, '02.1': assert squeeze(check(number, abs)).startswith('02.1 numeric_grad: ')
    assert str(check('7a.2', abs)).startswith('07a.2 InstanceNorm: ') and str(check(10.1, abs)).startswith('10.1 ')
    assert squeeze(hint('2.1')) == squeeze(hint('02.1')) and "(hint('02.1', 2) says more)" in squeeze(hint(2.1))
    assert exercises('7a') == exercises('07a') and exercises(2) == exercises('02') and exercises(10) == exercises('10')


def test_the_help_shows_no_address():
    for f in check, hint, exercises: assert ' at 0x' not in str(inspect.signature(f))


def test_the_list_says_how_answers_stand():
    space = {'exercises': exercises, 'check': check}
    exec("r = exercises()", space)
    assert 'No answer is here yet' in space['r']
    exec("r = exercises('02')", space)
    assert re.search(r'^02\.1 +numeric_grad +still to do', space['r'], re.M)
    exec(textwrap.dedent("""
        def numeric_grad(f, x, eps=1e-6): return x
        r = check()"""), space)
    assert re.search(r'^02\.1 +numeric_grad +not right yet', space['r'], re.M)
    assert '02.2' in space['r'] and '03.1' not in space['r']
    assert 'has none that check' in exercises('44')


def test_what_only_shares_its_name_with_an_exercise_is_no_answer():
    import statistics
    space = {'check': check, 'exercises': exercises, 'n_layers': 3, 'temperature': torch.tensor(1.), 'windows': [1],
             'zoneout': torch.nn.Dropout(), 'Adagrad': torch.optim.Adagrad, 'deal': statistics.mean, 'bpe': torch}
    exec("r = check()\ns = exercises('10')", space)
    assert 'No answer is here yet' in space['r']
    assert re.search(r'^10\.1 +n_layers +still to do', space['s'], re.M)
    exec('r = check("10.1")', space)
    assert '`n_layers` is an int, which cannot be called' in str(space['r'])


@pytest.mark.parametrize('make', [lambda f: f, functools.partial, functools.lru_cache, torch.no_grad(),
                                  torch.jit.script_if_tracing, lambda f: type('Called', (), {'__call__': f})()])
def test_an_answer_may_be_any_kind_of_function(make):
    def log_sigmoid(z, *_): return z
    space = {'check': check, 'log_sigmoid': make(log_sigmoid)}
    exec('r = check()', space)
    assert re.search(r'^04\.1 +log_sigmoid +not right yet', space['r'], re.M)


def test_no_module_imports_the_exercises():
    for path in (ROOT/'minidl').glob('*.py'):
        assert not re.search(r'^\s*(from|import) .*exercises', path.read_text(encoding='utf-8'), re.M), path.name


def test_the_wheel_has_them():
    assert "'minidl.exercises'" in (ROOT/'setup.py').read_text(encoding='utf-8')
