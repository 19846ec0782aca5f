"""Trees of models: dendrograms of kinship, graphs of descent, their files and what licences say along them."""
