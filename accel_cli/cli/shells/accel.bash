# accel's completion for bash.        source <(accel completion bash)

_accel() {
    local IFS=$' \t\n' line current before="" reply words
    if [[ -n $COMP_LINE ]]; then
        line="${COMP_LINE:0:COMP_POINT}"
    else # only the words are known: put back together what bash splits at =
        line="${COMP_WORDS[*]:0:COMP_CWORD+1}"
        line="${line// = /=}"
        line="${line/% =/=}"
    fi
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current="${words[${#words[@]} - 1]}"
    # where = breaks words (it does by default), readline replaces only what follows the last one
    [[ ${COMP_WORDS[COMP_CWORD]} != *?=* && $current == *=* ]] && before="${current%"${current##*=}"}"
    COMPREPLY=()
    while IFS= read -r reply; do
        COMPREPLY+=("${reply#"$before"}")
    done < <("${words[0]/#\~/$HOME}" completion words -- "${words[@]:1}" 2> /dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=./] ]]; then
        compopt -o nospace 2> /dev/null
    fi
    return 0
}

complete -o bashdefault -o default -F _accel accel
