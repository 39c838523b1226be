package hsm

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>

typedef unsigned long ck_ulong;
typedef struct { ck_ulong mechanism; void *parameter; ck_ulong length; } ck_mechanism;
// A module's function list (PKCS#11 v2.40, section 3.6): the version and the
// functions in their fixed order.
typedef struct { unsigned char major, minor; void *function[68]; } ck_function_list;

enum { index_login = 18, index_sign_init = 42, index_sign = 43 };

// The binding's context: the library's handle and the module's function list.
typedef struct { void *handle; void *list; } binding_ctx;

// chancery_list returns the function list of the binding's context, or NULL when
// the module gave none or the context is not what this file takes it for. The
// library is never unloaded: modules leave threads and handlers behind.
static void *chancery_list(const char *path, const void *context) {
	const binding_ctx *c = context;
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (library == NULL || c == NULL || c->handle != library) return NULL;
	return c->list;
}

static ck_ulong chancery_login(const void *p, ck_ulong session, ck_ulong user, unsigned char *pin, ck_ulong length) {
	const ck_function_list *list = p;
	ck_ulong (*login)(ck_ulong, ck_ulong, unsigned char *, ck_ulong) = list->function[index_login];
	return login(session, user, pin, length);
}

// chancery_sign is C_SignInit and C_Sign into the caller's buffer: two calls of
// the module and one from Go, where asking for the length first would make three.
static ck_ulong chancery_sign(const void *p, ck_ulong session, ck_ulong mechanism, ck_ulong key,
		unsigned char *data, ck_ulong data_length, unsigned char *out, ck_ulong *out_length) {
	const ck_function_list *list = p;
	ck_ulong (*init)(ck_ulong, ck_mechanism *, ck_ulong) = list->function[index_sign_init];
	ck_ulong (*sign)(ck_ulong, unsigned char *, ck_ulong, unsigned char *, ck_ulong *) = list->function[index_sign];
	ck_mechanism m = { mechanism, NULL, 0 };
	ck_ulong rv = init(session, &m, key);
	if (rv != 0) return rv;
	return sign(session, data, data_length, out, out_length);
}
*/
import "C"

import (
	"errors"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// functions is the module's function list.
type functions struct{ list unsafe.Pointer }

// loadFunctions finds the function list that the binding uses. Asking the module
// for it once more would not do: some modules (p11-kit's client) answer with
// another one each time, which has a life of its own.
func loadFunctions(path string, ctx *pkcs11.Ctx) (functions, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	list := C.chancery_list(name, *(*unsafe.Pointer)(unsafe.Pointer(ctx)))
	if list == nil {
		return functions{}, errors.New("the module gives no function list")
	}
	return functions{list}, nil
}

// login logs in as the token's user. The module reads the caller's own bytes, so
// that no copy of the PIN is left behind by the binding.
func (f functions) login(session pkcs11.SessionHandle, pin []byte) error {
	if len(pin) == 0 {
		return errors.New("the PIN is empty")
	}
	rv := C.chancery_login(f.list, C.ck_ulong(session), pkcs11.CKU_USER, (*C.uchar)(unsafe.Pointer(&pin[0])), C.ck_ulong(len(pin)))
	if rv != 0 {
		return pkcs11.Error(rv)
	}
	return nil
}

// maxSignature holds the longest signature that is accepted, P-521's.
const maxSignature = 132

// sign asks the token for one signature of data, which is a digest for ECDSA
// and the message for EdDSA. It stays inside this package: nothing outside can
// have a bare digest signed.
func (f functions) sign(session pkcs11.SessionHandle, mechanism uint, key pkcs11.ObjectHandle, data []byte) ([]byte, error) {
	var out [maxSignature]byte
	if len(data) == 0 {
		data = make([]byte, 1)[:0] // some tokens refuse a null pointer for an empty message
	}
	length := C.ck_ulong(len(out))
	rv := C.chancery_sign(f.list, C.ck_ulong(session), C.ck_ulong(mechanism), C.ck_ulong(key),
		(*C.uchar)(unsafe.Pointer(unsafe.SliceData(data))), C.ck_ulong(len(data)), (*C.uchar)(unsafe.Pointer(&out[0])), &length)
	if rv != 0 {
		return nil, pkcs11.Error(rv)
	}
	if int(length) > len(out) {
		return nil, errors.New("the token claims a signature longer than its buffer")
	}
	return append([]byte(nil), out[:length]...), nil
}
