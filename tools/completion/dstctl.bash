# Completion of dstctl for bash: dstctl itself says what may follow.
_dstctl() {
	local words cur head line files=
	# Readline cuts words at ":"; dstctl gets them as they were typed, up to the cursor.
	read -ra words <<<"${COMP_LINE:0:COMP_POINT}"
	[[ ${COMP_LINE:0:COMP_POINT} == *[[:space:]] ]] && words+=("")
	cur=${words[-1]}
	head=${cur%"${cur##*:}"} # what of the word stands already before the last ":"
	COMPREPLY=()
	while IFS= read -r line; do
		if [[ $line == :files ]]; then
			files=1
		else
			COMPREPLY+=("${line#"$head"}")
		fi
	done < <(dstctl __complete -- "${words[@]:1}" 2>/dev/null)
	if [[ $files ]]; then
		compopt -o filenames 2>/dev/null
		while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$cur")
	fi
	# What ends in ":" wants more behind it.
	[[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *: ]] && compopt -o nospace 2>/dev/null
	return 0
}
complete -F _dstctl dstctl
