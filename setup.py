"Reads settings.ini, so that versions and requirements stand in one place."
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=['='], inline_comment_prefixes=None)
parser.read(here / 'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']

def readme():
    "README.md, whose links lead to the repository from wherever they are read."
    text = (here / 'README.md').read_text(encoding='utf-8')
    text = re.sub(r'(!\[[^\]]*\]\()(?!https?://)', rf"\g<1>{cfg['git_url']}/raw/main/", text)
    return re.sub(r'((?<!!)\[[^\]]*\]\()(?!https?://|#)', rf"\g<1>{cfg['git_url']}/blob/main/", text)

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=readme(),
    long_description_content_type='text/markdown',
    keywords=cfg['keywords'].split(),
    author=cfg['author'],
    author_email=cfg['author_email'],
    url=cfg['git_url'],
    license='Apache-2.0',
    license_files=['LICENSE'],
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Developers',
        'Intended Audience :: Education',
        'Natural Language :: English',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        *(f'Programming Language :: Python :: {v}' for v in ('3.11', '3.12', '3.13')),
    ],
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg['requirements'].split(),
    extras_require={
        'text': cfg['text_requirements'].split(),
        'dev': cfg['dev_requirements'].split(),
        'docs': cfg['docs_requirements'].split(),
    },
    # The samples lie in data/samples in a clone and in minidl/samples in a wheel.
    packages=['minidl', 'minidl.exercises', 'minidl.samples'],
    package_dir={'minidl.samples': 'data/samples'},
    package_data={'minidl': ['py.typed'], 'minidl.samples': ['*', '*/*']},
    entry_points={'nbdev': ['minidl=minidl._modidx:d']},
    zip_safe=False,
)
