"""A few captions of the pretraining's data, kept from it and translated: what the pivot gap is measured on."""
