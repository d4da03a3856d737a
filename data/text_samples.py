"""The text samples: film reviews as in IMDb and wiki-like articles as in WikiText, both from the grammar in text_grammar.txt.

`make_imdb(folder, seed)` and `make_wikitext(folder, seed)` write them. What makes the second one worth having: the probability that the
grammar gives to the next word after any beginning of a text can be computed exactly (`surprisals`), and with it the perplexity
that no language model can beat. Needs nothing but Python.
"""
import html, json, math, random, re
from bisect import bisect
from itertools import accumulate
from pathlib import Path

HERE = Path(__file__).resolve().parent
EOL = '<eos>'  # a line's end counts as a token, as language models count it
ANY = None     # a first word that depends on the facts


# The grammar

TOKEN = re.compile(r'[\[|\]]|\{[^}]*\}|[^\s\[|\]{}]+')
REF = re.compile(r'\{(a |~)?(\w+)(?:@(\w+))?(\+s)?\}')
LOOKUP = re.compile(r'\{(\w+)\.(\w+)\}')
LATER = re.compile(r'\{(\w+)\+(\d+)\.\.(\d+)\}')
SHE = {'he': 'she', 'his': 'her', 'him': 'her'}


class Rule:
    "What a name stands for: some sequences of items, each with its probability."
    def __init__(self, weights, options):
        self.options, self.cumulative = options, list(accumulate(weights))
        self.probs = [w/self.cumulative[-1] for w in weights]
        self.by_word = None

    def draw(self, rng): return self.options[bisect(self.cumulative, rng.random()*self.cumulative[-1], hi=len(self.options) - 1)]

    def index(self, first_words):
        "Sort the options by the words they can begin with, so that `starting_with` need not try them all."
        self.by_word = {}
        for p, option in zip(self.probs, self.options):
            for word in first_words(option) or (ANY,): self.by_word.setdefault(word, []).append((p, option))

    def starting_with(self, words):
        "The options, with their probabilities, that may begin with one of `words`; all of them where `words` is empty."
        if not words or not self.by_word: return zip(self.probs, self.options)
        return [pair for word in (*words, ANY) for pair in self.by_word.get(word, ())]


def years(first, last): return Rule([1]*(last - first + 1), [(str(y),) for y in range(first, last + 1)])


def only(*items): return Rule([1], [items])


class Grammar:
    """A context-free grammar with a memory.

    A text in the making is a stack of items yet to be said and a dict of facts said before. An item is a string: a plain word,
    a reference `{...}` that `rule` looks up, or a note to the memory `{!...}` that `note` carries out.
    """
    def __init__(self, path=HERE/'text_grammar.txt'):
        blocks = {}
        for line in path.read_text(encoding='utf8').splitlines():
            if not line.strip() or line.startswith('#'): continue
            if header := re.match(r'(\w+)( =|:)', line): block = blocks[header[1]] = [header[2], line[header.end():]]
            else: block.append(line)
        self.kinds = dict(pair.split('=') for pair in ' '.join(blocks.pop('facts')[1:]).split())
        words = {name: ' '.join(lines).split() for name, (kind, *lines) in blocks.items() if kind == ' ='}
        for name, n in ('last', 300), ('town', 130): words[name] = compounds(words.pop(f'{name}_head'), words.pop(f'{name}_tail'), n)
        for name in 'job', 'thing', 'place', 'mood': words[f'{name}_any'] = [w for genre in words['genre'] for w in words[f'{name}_{genre}']]
        self.women, self.county = set(words['first_f']), {t: words['county'][i % 10] for i, t in enumerate(words['town'])}
        self.rules = {name: Rule([1/(i + 5) for i in range(len(ws))], [tuple(w.split('_')) for w in ws]) for name, ws in words.items()}
        self.rules |= {'year': years(1921, 1989), 'birth_year': years(1880, 1956)}
        for name, (kind, *lines) in blocks.items():
            if kind == ':': self.rules[name] = self.read_templates(lines)
        for rule in self.rules.values(): rule.index(self.first_words)

    def read_templates(self, lines):
        weights, options = [], []
        for line in filter(str.strip, lines):
            weight, line = re.match(r'\s*(?:(\d+) \* )?(.*)', line).groups()
            weights.append(int(weight or 1))
            options += self.read_template(iter(TOKEN.findall(line)))
        return Rule(weights, options)

    def read_template(self, tokens):
        "The alternatives up to the bracket that closes them; each [a|b|c] inside becomes a rule of its own."
        options = [()]
        for token in tokens:
            if token == ']': break
            if token == '|': options.append(()); continue
            if token == '[':
                inner, token = self.read_template(tokens), f'{{choice{len(self.rules)}}}'
                self.rules[token[1:-1]] = Rule([1]*len(inner), inner)
            if token.startswith('{^'): options[-1] += ('{!capital}', '{' + token[2:])
            else: options[-1] += (EOL if token == '¶' else token,)
        return options

    def first_words(self, option):
        "The words that a sequence of items can begin with; None where that depends on the facts or it may be empty."
        if not option: return None
        if option[0][0] != '{': return {option[0]}
        if option[0].startswith('{a '): return {'a', 'an'}
        if option[0][1:-1] not in self.rules: return None
        words = [self.first_words(o) for o in self.rules[option[0][1:-1]].options]
        return None if None in words else set().union(*words)

    def rule(self, item, facts):
        "What the reference `item` stands for where these facts are known."
        if item.startswith('{@'): return self.recall(item[2:-1], facts)
        if m := LOOKUP.fullmatch(item): return only(*self.attribute(facts[m[1]], m[2]))
        if m := LATER.fullmatch(item):
            year = int(facts[m[1]][0])
            return years(year + int(m[2]), year + int(m[3]))
        how, name, fact, plural = REF.fullmatch(item).groups(default='')
        if fact: name += '_' + facts.get(fact, [fact])[0]
        if how == '~': return self.unused(name, facts)
        key = how + name + plural
        if key not in self.rules:
            rule = self.rules[name]
            article = lambda word: ('an',) if word[0] in 'aeiou' else ('a',)
            self.rules[key] = Rule(rule.probs, [(article(o[0]) if how else ()) + o[:-1] + (with_s(o[-1]) if plural else o[-1],) for o in rule.options])
        return self.rules[key]

    def unused(self, name, facts):
        "The options that this text has not used yet; the one that is drawn leaves a note."
        rule = self.rules[name]
        left = [i for i in range(len(rule.options)) if (name, i) not in facts.get('used', ())]
        return Rule([rule.probs[i] for i in left], [(f'{{!used {name} {i}}}', *rule.options[i]) for i in left])

    def recall(self, fact, facts):
        "A fact: drawn and remembered the first time, repeated from then on, persons by their surname."
        if fact not in facts: return only('{!open}', f'{{{self.kinds[fact]}}}', f'{{!close {fact}}}')
        return only(*(facts[fact][-1:] if self.kinds[fact] == 'person' else facts[fact]))

    def attribute(self, value, name):
        if name == 'full': return value
        if name == 'county': return (self.county[value[0]],)
        return (SHE[name] if value[0] in self.women else name,)

    def note(self, item, facts):
        "The facts after a note to the memory. Never changed in place: other readings of the same text share them."
        match item[2:-1].split():
            case ['new']: return {}
            case ['used', name, i]: return {**facts, 'used': facts.get('used', frozenset()) | {(name, int(i))}}
            case ['capital']: return {**facts, 'capital': True}
            case ['open']: return {**facts, 'open': ()}
            case ['close', fact]: return {k: v for k, v in facts.items() if k != 'open'} | {fact: facts['open']}

    def say(
        self,
        rng:random.Random,
        item:str,      # what to say, '{article}'
        facts:dict={}, # what has been said before: name -> words
    ):                 # the words; the facts after them
        "Draw a text from the top down."
        words, stack = [], [item]
        while stack:
            item = stack.pop()
            if item.startswith('{!'): facts = self.note(item, facts)
            elif item[0] == '{': stack += reversed(self.rule(item, facts).draw(rng))
            else:
                words.append(shown(item, facts))
                facts = remember(facts, item)
        return words, facts


def with_s(word):
    if word.endswith(('s', 'sh', 'ch', 'x')): return word + 'es'
    return word[:-1] + 'ies' if word[-1] == 'y' and word[-2] not in 'aeo' else word + 's'


def shown(item, facts): return item[0].upper() + item[1:] if 'capital' in facts else item


def remember(facts, item):
    "The facts after the word `item`."
    if 'capital' in facts: facts = {k: v for k, v in facts.items() if k != 'capital'}
    return {**facts, 'open': (*facts['open'], item)} if 'open' in facts else facts


def compounds(heads, tails, n):
    "The first n of all heads and tails put together, in an order that never changes: the world is the same for every seed."
    names = {head + tail: None for head in heads for tail in tails if head[-1] != tail[0]}
    rng = random.Random(n)
    return sorted(names, key=lambda name: rng.random())[:n]


# How probable the next word is

def next_words(
    grammar:Grammar,
    readings:list,   # (probability, stack, facts) of every way to read the text so far
    word:str|None,   # look for this word only; None: for every word
)->dict:             # word -> readings of the text with that word, not normalized
    "Expand what is on top of each stack until every reading has a word there."
    plain = (word,) if word else ()
    capitalized = tuple({word: 1, word[0].lower() + word[1:]: 1}) if word else ()
    found, todo = {}, list(readings)
    while todo:
        p, (item, *rest), facts = todo.pop()
        if item.startswith('{!'): todo.append((p, rest, grammar.note(item, facts)))
        elif item[0] == '{':
            options = grammar.rule(item, facts).starting_with(capitalized if 'capital' in facts else plain)
            todo += ((p*q, (*option, *rest), facts) for q, option in options)
        elif word in (None, shown(item, facts)): found.setdefault(shown(item, facts), []).append((p, rest, remember(facts, item)))
    return found


def surprisals(
    grammar:Grammar,
    words:list,      # a text from its beginning, as `tokenize` gives it
):                   # yields -log p(word | all words before it) for each word, in nats
    """Read a text from left to right, with no knowledge of how it was made.

    Every way in which the grammar can have come to the words so far is kept, with its probability given these words; so the sum over
    them is the exact probability of the next word given its whole past, and nothing that is hidden from a reader helps.
    """
    readings = [(1., ('{text}',), {})]
    for i, word in enumerate(words):
        found = next_words(grammar, readings, word).get(word)
        if not found: raise ValueError(f'The grammar cannot say {word!r} after {" ".join(words[max(0, i - 12):i])!r}.')
        total = sum(p for p, _, _ in found)
        yield -math.log(total)
        merged = {}
        for p, stack, facts in found:
            key = (tuple(stack), frozenset(facts.items())) if len(found) > 1 else None
            merged[key] = merged.get(key, (0,))[0] + p/total, stack, facts
        readings = list(merged.values())


# wikitext

def render(words):
    "The layout of WikiText: a space at both ends of a line, empty lines around headings."
    lines = ' '.join(words).split(f' {EOL}')
    heading = lambda line: line.strip().startswith('=')
    return ''.join(f' \n {line.strip()} \n \n' if heading(line) else f' {line.strip()} \n' for line in lines if line.strip())


def tokenize(text):
    "The words of each line that is not empty, and its end."
    return [token for line in text.splitlines() if line.strip() for token in (*line.split(), EOL)]


def make_articles(grammar, rng, n_tokens):
    "Whole articles, `n_tokens` or a little more together."
    words = []
    while len(words) < n_tokens: words += grammar.say(rng, '{article}')[0]
    return words
