help: ; @echo
