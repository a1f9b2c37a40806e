"""Compile a source into a dataset: census -> split -> plan -> execute -> commit."""
