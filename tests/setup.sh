# Sourced by examples/vae_mnist and tests/run, which set $root to the top folder: what a machine needs, and building.
# shellcheck shell=sh disable=SC2154
# POSIX sh; assumes nothing but the base system. Debian and its kin are set up; others are told what to install.

say()
{
    printf 'taper: %s\n' "$*" >&2
}

have() # COMMAND
{
    command -v "$1" >/dev/null 2>&1
}

have_compiler()
{
    printf '#include <stdio.h>\n' | "${CC:-cc}" -E - >/dev/null 2>&1
}

have_library() # PKG-CONFIG-NAME
{
    have pkg-config && pkg-config --exists "$1"
}

have_file() # PATH
{
    [ -e "$1" ]
}

# Puts the Debian packages that are missing into $required and $useful. "tests" adds what only they need.
look() # program | tests
{
    required="" useful=""
    have_compiler || required="$required gcc libc6-dev"
    have meson || required="$required meson"
    have ninja || required="$required ninja-build"
    have pkg-config || required="$required pkg-config"
    have_library libffi || required="$required libffi-dev"
    have_library zlib || required="$required zlib1g-dev"
    have_library libpng || required="$required libpng-dev"
    if [ "$1" = tests ]; then
        have_library check || required="$required check"
    fi
    # Without these all works, on synthetic data or the library's own matrix products.
    have curl || useful="$useful curl"
    have_file /etc/ssl/certs/ca-certificates.crt || useful="$useful ca-certificates"
    /sbin/ldconfig -p 2>/dev/null | grep -q 'libopenblas\.so\.0 ' || useful="$useful libopenblas0-pthread"
}

apt_get() # ARGUMENT...
{
    $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -y -q -o DPkg::Lock::Timeout=120 "$@" </dev/null >>"$log" 2>&1
}

# Installs packages; fails where it may not, or cannot. The lists are fetched only when the present ones do not do.
install_packages() # PACKAGE...
{
    have apt-get || return 1
    as_root=""
    if [ "$(id -u)" != 0 ]; then
        have sudo && sudo -n true 2>/dev/null || return 1
        as_root='sudo -n'
    fi
    say "installing $*"
    log=$(mktemp) || return 1
    apt_get install --no-install-recommends "$@" ||
        { apt_get update && apt_get install --no-install-recommends "$@"; } ||
        { tail -n 20 "$log" >&2; rm -f "$log"; return 1; }
    rm -f "$log"
}

# Installs what is missing, or says what to run and exits. What is merely useful is tried only before a first build.
set_up() # program | tests
{
    look "$1"
    have_file "$root/build/build.ninja" && useful=
    [ -n "$required$useful" ] || return 0
    # shellcheck disable=SC2086 # a list of packages
    if install_packages $required $useful || { [ -n "$useful" ] && [ -n "$required" ] && install_packages $required; }
    then
        return 0
    fi
    [ -n "$required" ] || return 0
    say "this machine lacks some of what the build needs. On Debian or Ubuntu run, as root:"
    say "    apt-get update && apt-get install$required"
    say "elsewhere: a C compiler, Meson 1.0, Ninja, pkg-config, and the headers of libffi, zlib and libpng"
    exit 1
}

# Configures FOLDER (once, or again when options are given) and builds TARGET; the log is shown only on failure.
build() # FOLDER TARGET [MESON-OPTION...]
{
    folder=$root/$1 target=$2
    shift 2
    mkdir -p "$folder" || exit 1
    if [ ! -f "$folder/build.ninja" ]; then
        say "building in ${folder##*/}/"
        rm -rf "$folder/meson-private" # left by an interrupted run
        set -- setup "$@" "$folder" "$root"
    else
        set -- configure "$@" "$folder"
    fi
    if { [ $# -eq 2 ] || meson "$@"; } >"$folder/build.log" 2>&1 &&
        ninja -C "$folder" "$target" >>"$folder/build.log" 2>&1; then
        return 0
    fi
    cat "$folder/build.log" >&2
    say "the build in $folder failed; its log is above"
    return 1
}
