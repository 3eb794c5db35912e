# Keeps the rows of dates.json whose year begins with 20, one JSON object a line, in the file `out`.

/"output": "20/ {
    sub(/,$/, "")
    print > out
    kept++
}

END {
    printf "{\"step\": %d, \"kept\": %d}\n", NR, kept > "/dev/fd/3"
    print kept " of " NR " lines kept"
}
