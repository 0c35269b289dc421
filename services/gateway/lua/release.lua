give_up()
return 1
