# accel's completion for fish.        accel completion fish | source

function __accel_words
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l found ($words[1] completion words --meanings -- $words[2..-1] "$current" 2> /dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path "$current"
    end
end

complete -c accel -f -a '(__accel_words)'
