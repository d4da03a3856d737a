"Exercises that check themselves: `check('02.1')` looks at your answer, `hint('02.1')` helps, `exercises('02')` lists."
from .core import check, exercises, hint

__all__ = ['check', 'hint', 'exercises']
