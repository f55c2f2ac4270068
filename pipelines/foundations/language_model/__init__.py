"""The small bilingual language model: trained here on text only, before any image is seen."""
