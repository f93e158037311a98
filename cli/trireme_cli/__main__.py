from trireme_cli import main

main()
