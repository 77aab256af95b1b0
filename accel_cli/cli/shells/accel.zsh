#compdef accel
# accel's completion for zsh.        source <(accel completion zsh)

_accel() {
    local -a open open_shown whole whole_shown
    local text meaning shown
    local -a typed=("${(@)words[2,CURRENT-1]}" "$PREFIX")
    while IFS=$'\t' read -r text meaning; do
        shown="$text${meaning:+  -- $meaning}"
        if [[ $text == *[=./] ]]; then
            open+=("$text") open_shown+=("$shown")
        else
            whole+=("$text") whole_shown+=("$shown")
        fi
    done < <("${words[1]/#\~/$HOME}" completion words --meanings -- "${typed[@]}" 2> /dev/null)
    if (( ! $#open && ! $#whole )); then
        _files
        return
    fi
    (( $#whole )) && compadd -Q -l -d whole_shown -a whole
    (( $#open )) && compadd -Q -l -S '' -d open_shown -a open
    return 0
}

if [[ $funcstack[1] == _accel ]]; then
    _accel "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
    compdef _accel accel
fi
