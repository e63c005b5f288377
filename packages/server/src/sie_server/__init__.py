"""The worker of SIE: runs small models and answers for them."""
