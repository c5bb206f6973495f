"""Data: corpora and tokenizers, the tokenised cache, batches, and what n-grams predict."""
