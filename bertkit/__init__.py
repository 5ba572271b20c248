"""bertkit: fine-tune BERT on SQuAD from a notebook, on one or more hosts."""
