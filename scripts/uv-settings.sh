# Sourced. Tells uv what pip was told on this machine (index, certificates), since uv does not read pip's settings.
pip_setting() {  # the environment wins over the files, as in pip itself
    .venv/bin/python -m pip config list 2>/dev/null |
        sed -n "s/^\(:env:\.\|install\.\|global\.\)$1='\(.*\)'\$/\1 \2/p" | sort | sed -n '1s/^[^ ]* //p'
}
if [[ -z ${UV_DEFAULT_INDEX:-} ]]; then
    index=$(pip_setting index-url)
    [[ -z $index ]] || export UV_DEFAULT_INDEX=$index
fi
if [[ -z ${SSL_CERT_FILE:-} ]]; then
    certificates=$(pip_setting cert)
    [[ ! -f $certificates ]] || export SSL_CERT_FILE=$certificates
fi
export UV_NO_PROGRESS=1
