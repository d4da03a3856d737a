"Right and wrong answers to the exercises of chapter 06."
from minidl.schedule import annealer, combine_scheds, create_phases, sched_cos, sched_lin, sched_no


@annealer
def sched_step(start, end, pos, n_steps=3): return start*(end/start)**(min(int(pos*n_steps), n_steps - 1)/(n_steps - 1))

@annealer
def equal_differences(start, end, pos, n_steps=3):
    return start + (end - start)*min(int(pos*n_steps), n_steps - 1)/(n_steps - 1)
@annealer
def never_arrives(start, end, pos, n_steps=3): return start*(end/start)**(min(int(pos*n_steps), n_steps - 1)/n_steps)
@annealer
def one_too_many(start, end, pos, n_steps=3): return start*(end/start)**(int(pos*n_steps)/(n_steps - 1))
@annealer
def smooth(start, end, pos, n_steps=3): return start*(end/start)**pos
@annealer
def always_three(start, end, pos, n_steps=3): return start*(end/start)**(min(int(pos*3), 2)/2)
def not_a_schedule(start, end, pos=0., n_steps=3): return start


def sched_sgdr(lr, n_cycles, factor=2):
    lengths = [factor**i for i in range(n_cycles)]
    return combine_scheds([n/sum(lengths) for n in lengths], [sched_cos(lr, 0.)]*n_cycles)

def equal_cycles(lr, n_cycles, factor=2): return sched_sgdr(lr, n_cycles, 1)
def shrinking(lr, n_cycles, factor=2): return sched_sgdr(lr, n_cycles, 1/factor)
def straight(lr, n_cycles, factor=2):
    lengths = [factor**i for i in range(n_cycles)]
    return combine_scheds([n/sum(lengths) for n in lengths], [sched_lin(lr, 0.)]*n_cycles)
def up_again(lr, n_cycles, factor=2):
    lengths = [factor**i for i in range(n_cycles)]
    return combine_scheds([n/sum(lengths) for n in lengths],
                          [sched_cos(lr, 0.), sched_cos(0., lr), sched_cos(lr, 0.)][:n_cycles])
def lower_each_time(lr, n_cycles, factor=2):
    lengths = [factor**i for i in range(n_cycles)]
    return combine_scheds([n/sum(lengths) for n in lengths], [sched_cos(lr/factor**i, 0.) for i in range(n_cycles)])
def in_batches(lr, n_cycles, factor=2): return sched_sgdr(lr, n_cycles, factor)(0.)


def trapezoid(lr, warm=0.1, cool=0.3):
    return combine_scheds(create_phases([warm, 1 - warm - cool]),
                          [sched_lin(0., lr), sched_no(lr, lr), sched_lin(lr, 0.)])

def no_flat(lr, warm=0.1, cool=0.3): return combine_scheds([warm, 1 - warm], [sched_lin(0., lr), sched_lin(lr, 0.)])
def cosine(lr, warm=0.1, cool=0.3):
    return combine_scheds(create_phases([warm, 1 - warm - cool]),
                          [sched_cos(0., lr), sched_no(lr, lr), sched_cos(lr, 0.)])
def divides(lr, warm=0.1, cool=0.3):
    def sched(pos): return lr*max(0., min(pos/warm, 1., (1 - pos)/cool))
    return sched
def a_tenth(lr, warm=0.1, cool=0.3):
    return combine_scheds(create_phases([warm, 1 - warm - cool]),
                          [sched_lin(lr/10, lr), sched_no(lr, lr), sched_lin(lr, 0.)])
def overlaps(lr, warm=0.1, cool=0.3):
    def sched(pos): return lr*min(pos/warm if warm else 1., 1., (1 - pos)/cool if cool else 1.)
    return sched


right = {'06.1': sched_step, '06.2': sched_sgdr, '06.3': trapezoid}
wrong = {
    '06.1': {'three steps: at 0.4 of the fit: the value': (equal_differences, never_arrives),
             'the end: at 1 of the fit': one_too_many,
             'three steps: at 0.2 of the fit': smooth, 'four steps: at 0.3 of the fit': always_three,
             'a function of the position': not_a_schedule},
    '06.2': {'three cycles, each twice as long: at': (equal_cycles, shrinking, lower_each_time),
             'one cycle: at 0.1': straight, 'two equal cycles: at 0.5': up_again,
             'a function of the position': in_batches},
    '06.3': {'the defaults: at 0.4': no_flat, 'the defaults: at 0.75': cosine, 'raises ZeroDivisionError': divides,
             'the defaults: at 0 of the fit': a_tenth,
             'more than a whole: raises nothing': overlaps},
}
