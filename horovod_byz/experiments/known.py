"""The names and words of configurations, under the name that the experiments use."""

from horovod_byz.words import known, parse_literal, parse_word

__all__ = ["known", "parse_literal", "parse_word"]
