// faultmodule wraps another PKCS#11 module and makes it fail as real tokens do.
//
//   gcc -O2 -Wall -Wextra -shared -fPIC -fvisibility=hidden -o faultmodule.so faultmodule.c -ldl -lpthread
//
// Environment:
//   FAULT_MODULE    the wrapped module's path
//   FAULT_CONTROL   a file of orders, read again whenever it changes
//   FAULT_STATS     a file that receives "NAME COUNT MICROSECONDS" lines at C_Finalize and on the order "stats";
//                   the microseconds are those spent in the wrapped module, all calls together. The line "overlaps"
//                   counts calls that ran beside one which must be alone: C_Initialize, C_Finalize, C_CloseAllSessions,
//                   and whatever finds, makes, wraps or destroys objects
//   FAULT_INIT      the string that C_Initialize hands to the wrapped module as pReserved (NSS wants one),
//                   for callers that cannot give one themselves
//
// Orders, one a line; NAME is a function such as C_Sign, or * for all:
//   latency NAME MICROSECONDS      each call takes longer
//   fail NAME RV COUNT SKIP        after SKIP calls, COUNT calls answer RV (hex or decimal) without reaching the token
//   late NAME RV COUNT SKIP        the same, but after the token has carried the call out
//   gone RV                        every call answers RV until the order is taken away
//   killsessions                   close all sessions of the token, once
//   maxsessions N                  C_OpenSession answers CKR_SESSION_COUNT beyond N
//   serial                         one call at a time
//   corrupt COUNT                  flip a bit in the next COUNT signatures
//   short COUNT                    cut the last byte off the next COUNT signatures
//   pad COUNT                      put a zero before r and before s in the next COUNT signatures
//   der COUNT                      give the next COUNT signatures as ASN.1 DER instead of r and s
//   hang NAME SECONDS              the next call stays out that long
//   crash NAME                     the next call ends the process
//   stats                          write the statistics now
//
// An order that is not understood ends the process: a test must not pass because a fault was misspelt.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long ulong_t;
// All the functions that are wrapped take at most eight word-sized arguments,
// which lets one wrapper serve each position of the list.
typedef ulong_t (*function_t)(ulong_t, ulong_t, ulong_t, ulong_t, ulong_t, ulong_t, ulong_t, ulong_t);
typedef struct { unsigned char major, minor; void *function[68]; } list_t;

#define FUNCTIONS 68
static const char *names[FUNCTIONS] = {
	"C_Initialize", "C_Finalize", "C_GetInfo", "C_GetFunctionList", "C_GetSlotList", "C_GetSlotInfo", "C_GetTokenInfo",
	"C_GetMechanismList", "C_GetMechanismInfo", "C_InitToken", "C_InitPIN", "C_SetPIN", "C_OpenSession", "C_CloseSession",
	"C_CloseAllSessions", "C_GetSessionInfo", "C_GetOperationState", "C_SetOperationState", "C_Login", "C_Logout",
	"C_CreateObject", "C_CopyObject", "C_DestroyObject", "C_GetObjectSize", "C_GetAttributeValue", "C_SetAttributeValue",
	"C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal", "C_EncryptInit", "C_Encrypt", "C_EncryptUpdate",
	"C_EncryptFinal", "C_DecryptInit", "C_Decrypt", "C_DecryptUpdate", "C_DecryptFinal", "C_DigestInit", "C_Digest",
	"C_DigestUpdate", "C_DigestKey", "C_DigestFinal", "C_SignInit", "C_Sign", "C_SignUpdate", "C_SignFinal",
	"C_SignRecoverInit", "C_SignRecover", "C_VerifyInit", "C_Verify", "C_VerifyUpdate", "C_VerifyFinal",
	"C_VerifyRecoverInit", "C_VerifyRecover", "C_DigestEncryptUpdate", "C_DecryptDigestUpdate", "C_SignEncryptUpdate",
	"C_DecryptVerifyUpdate", "C_GenerateKey", "C_GenerateKeyPair", "C_WrapKey", "C_UnwrapKey", "C_DeriveKey",
	"C_SeedRandom", "C_GenerateRandom", "C_GetFunctionStatus", "C_CancelFunction", "C_WaitForSlotEvent",
};
enum {
	F_INITIALIZE = 0, F_FINALIZE = 1, F_GET_FUNCTION_LIST = 3, F_OPEN_SESSION = 12, F_CLOSE_SESSION = 13, F_CLOSE_ALL = 14,
	F_CREATE_OBJECT = 20, F_DESTROY_OBJECT = 22, F_FIND_INIT = 26, F_FIND_FINAL = 28, F_SIGN = 43, F_GENERATE_KEY = 58, F_DERIVE_KEY = 62,
};
enum { CKR_SESSION_COUNT = 0xB1, CKR_GENERAL_ERROR = 5 };

struct rule { int function; ulong_t rv; long count, skip; long value; };
enum kind { FAIL, LATE, LATENCY, HANG, CRASH, KINDS };

static list_t *inner, outer;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER, one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static struct rule rules[KINDS][32];
static int rule_count[KINDS];
static ulong_t gone;
static long corrupt, cut, padded, as_der, max_sessions, sessions, calls[FUNCTIONS], spent[FUNCTIONS];
static int serial, kill_sessions;
static long in_flight, alone_in_flight, overlaps;
static struct timespec read_at;
static long read_size = -1;
static ino_t read_inode;
static ulong_t last_slot;

static int function_named(const char *name) {
	if (strcmp(name, "*") == 0) return -1;
	for (int i = 0; i < FUNCTIONS; i++)
		if (strcmp(name, names[i]) == 0) return i;
	fprintf(stderr, "faultmodule: no function %s\n", name);
	abort();
}

static void write_stats(void) {
	const char *path = getenv("FAULT_STATS");
	if (path == NULL) return;
	FILE *f = fopen(path, "w");
	if (f == NULL) return;
	for (int i = 0; i < FUNCTIONS; i++)
		if (calls[i] > 0) fprintf(f, "%s %ld %ld\n", names[i], calls[i], spent[i]);
	if (overlaps > 0) fprintf(f, "overlaps %ld 0\n", overlaps);
	fclose(f);
}

static void order(char *line) {
	char verb[32] = "", name[64] = "", rv[32] = "0";
	long a = 0, b = 0;
	int n = sscanf(line, "%31s %63s %31s %ld %ld", verb, name, rv, &a, &b);
	if (n < 1 || verb[0] == '#') return;
	int kind = strcmp(verb, "fail") == 0 ? FAIL : strcmp(verb, "late") == 0 ? LATE : strcmp(verb, "latency") == 0 ? LATENCY
		: strcmp(verb, "hang") == 0 ? HANG : strcmp(verb, "crash") == 0 ? CRASH : KINDS;
	if (kind < KINDS && rule_count[kind] < 32) {
		struct rule r = { function_named(name), strtoul(rv, NULL, 0), a > 0 ? a : 1, b, strtol(rv, NULL, 0) };
		rules[kind][rule_count[kind]++] = r;
	} else if (strcmp(verb, "gone") == 0) gone = strtoul(name, NULL, 0);
	else if (strcmp(verb, "killsessions") == 0) kill_sessions = 1;
	else if (strcmp(verb, "maxsessions") == 0) max_sessions = atol(name);
	else if (strcmp(verb, "serial") == 0) serial = 1;
	else if (strcmp(verb, "corrupt") == 0) corrupt = n > 1 ? atol(name) : 1;
	else if (strcmp(verb, "short") == 0) cut = n > 1 ? atol(name) : 1;
	else if (strcmp(verb, "pad") == 0) padded = n > 1 ? atol(name) : 1;
	else if (strcmp(verb, "der") == 0) as_der = n > 1 ? atol(name) : 1;
	else if (strcmp(verb, "stats") == 0) write_stats();
	else {
		fprintf(stderr, "faultmodule: no order %s, or too many of them\n", verb);
		abort();
	}
}

// read_orders reads the control file when it has changed; lock is held.
static void read_orders(void) {
	const char *path = getenv("FAULT_CONTROL");
	struct stat s;
	if (path == NULL) return;
	if (stat(path, &s) != 0) memset(&s, 0, sizeof s);
	if (s.st_ino == read_inode && s.st_size == read_size && s.st_mtim.tv_sec == read_at.tv_sec && s.st_mtim.tv_nsec == read_at.tv_nsec) return;
	read_at = s.st_mtim;
	read_size = s.st_size;
	read_inode = s.st_ino;
	memset(rule_count, 0, sizeof rule_count);
	gone = 0; corrupt = 0; cut = 0; padded = 0; as_der = 0; max_sessions = 0; serial = 0; kill_sessions = 0;
	FILE *f = fopen(path, "r");
	if (f == NULL) return;
	char line[256];
	while (fgets(line, sizeof line, f) != NULL) order(line);
	fclose(f);
}

// due finds a rule of a kind for a function and counts it; lock is held.
static struct rule *due(int kind, int function) {
	for (int i = 0; i < rule_count[kind]; i++) {
		struct rule *r = &rules[kind][i];
		if (r->function != function && r->function != -1) continue;
		if (r->skip > 0) { r->skip--; continue; }
		if (kind != LATENCY) {
			if (r->count == 0) continue;
			r->count--;
		}
		return r;
	}
	return NULL;
}

// integer writes a big-endian number as a DER INTEGER and returns its length.
static ulong_t integer(unsigned char *to, const unsigned char *from, ulong_t n) {
	while (n > 1 && *from == 0) { from++; n--; }
	ulong_t sign = *from >> 7;
	to[0] = 2;
	to[1] = (unsigned char)(n + sign);
	to[2] = 0;
	memcpy(to + 2 + sign, from, n);
	return 2 + sign + n;
}

// spoil changes a signature as ordered; lock is held. The buffer has room for
// ten bytes more than P-256's signature, as callers that ask for none cannot be
// given DER.
static void spoil(unsigned char *signature, ulong_t *length) {
	if (corrupt > 0) { corrupt--; signature[7] ^= 1; }
	if (cut > 0) { cut--; --*length; }
	if (padded > 0) {
		padded--;
		ulong_t half = *length / 2;
		memmove(signature + half + 2, signature + half, half);
		memmove(signature + 1, signature, half);
		signature[0] = signature[half + 1] = 0;
		*length += 2;
	}
	if (as_der > 0 && *length == 64) {
		unsigned char der[80] = { 0x30 };
		as_der--;
		ulong_t n = integer(der + 2, signature, 32);
		n += integer(der + 2 + n, signature + 32, 32);
		der[1] = (unsigned char)n;
		*length = n + 2;
		memcpy(signature, der, *length);
	}
}

static long microseconds(void) {
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000L + now.tv_nsec / 1000;
}

// reserved_for returns what C_Initialize is called with.
static ulong_t reserved_for(ulong_t given) {
	static struct { void *create, *destroy, *lock, *unlock; ulong_t flags; void *reserved; } arguments = { 0, 0, 0, 0, 2, 0 };
	arguments.reserved = getenv("FAULT_INIT");
	return arguments.reserved == NULL ? given : (ulong_t)&arguments;
}

// must_be_alone tells which functions break in some tokens beside others.
static int must_be_alone(int f) {
	return f == F_INITIALIZE || f == F_FINALIZE || f == F_CLOSE_ALL || (f >= F_CREATE_OBJECT && f <= F_DESTROY_OBJECT)
		|| (f >= F_FIND_INIT && f <= F_FIND_FINAL) || (f >= F_GENERATE_KEY && f <= F_DERIVE_KEY);
}

static ulong_t dispatch(int f, ulong_t a, ulong_t b, ulong_t c, ulong_t d, ulong_t e, ulong_t g, ulong_t h, ulong_t i) {
	function_t real = (function_t)inner->function[f];
	pthread_mutex_lock(&lock);
	read_orders();
	calls[f]++;
	int alone = must_be_alone(f);
	if (alone ? in_flight > 0 : alone_in_flight > 0) overlaps++;
	in_flight++;
	alone_in_flight += alone;
	int closing = kill_sessions;
	kill_sessions = 0;
	struct rule *fail = due(FAIL, f), *late = due(LATE, f), *slow = due(LATENCY, f), *hang = due(HANG, f), *crash = due(CRASH, f);
	ulong_t fail_rv = fail ? fail->rv : 0, late_rv = late ? late->rv : 0;
	long slow_us = slow ? slow->value : 0, hang_s = hang ? hang->value : 0;
	// A token that is gone lets the module be finalised and initialised.
	ulong_t gone_rv = f == F_FINALIZE || f == F_INITIALIZE ? 0 : gone;
	int in_line = serial;
	if (f == F_OPEN_SESSION && max_sessions > 0 && sessions >= max_sessions) fail_rv = CKR_SESSION_COUNT;
	pthread_mutex_unlock(&lock);
	if (crash) kill(getpid(), SIGSEGV);
	if (closing) ((function_t)inner->function[F_CLOSE_ALL])(last_slot, 0, 0, 0, 0, 0, 0, 0);
	if (in_line) pthread_mutex_lock(&one_at_a_time);
	if (hang_s > 0) sleep((unsigned)hang_s);
	if (slow_us > 0) usleep((useconds_t)slow_us);
	if (f == F_INITIALIZE) a = reserved_for(a);
	long began = microseconds();
	ulong_t rv = gone_rv ? gone_rv : fail_rv ? fail_rv : real(a, b, c, d, e, g, h, i);
	long took = microseconds() - began;
	if (in_line) pthread_mutex_unlock(&one_at_a_time);
	pthread_mutex_lock(&lock);
	if (rv == 0 && f == F_OPEN_SESSION) { sessions++; last_slot = a; }
	if (rv == 0 && f == F_CLOSE_SESSION) sessions--;
	if (f == F_CLOSE_ALL || f == F_FINALIZE || closing) sessions = 0;
	spent[f] += took;
	in_flight--;
	alone_in_flight -= alone;
	if (rv == 0 && f == F_SIGN && d != 0) spoil((unsigned char *)d, (ulong_t *)e);
	if (f == F_FINALIZE) write_stats();
	pthread_mutex_unlock(&lock);
	return late_rv ? late_rv : rv;
}

#define WRAP(n) static ulong_t wrap_##n(ulong_t a, ulong_t b, ulong_t c, ulong_t d, ulong_t e, ulong_t f, ulong_t g, ulong_t h) \
	{ return dispatch(n, a, b, c, d, e, f, g, h); }
#define EACH(X) X(0) X(1) X(2) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16) X(17) X(18) X(19) \
	X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29) X(30) X(31) X(32) X(33) X(34) X(35) X(36) X(37) X(38) X(39) \
	X(40) X(41) X(42) X(43) X(44) X(45) X(46) X(47) X(48) X(49) X(50) X(51) X(52) X(53) X(54) X(55) X(56) X(57) X(58) X(59) \
	X(60) X(61) X(62) X(63) X(64) X(65) X(66) X(67)
EACH(WRAP)

static ulong_t get_list(list_t **list);

static int load(void) {
	const char *path = getenv("FAULT_MODULE");
	void *module = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
	if (module == NULL) { fprintf(stderr, "faultmodule: FAULT_MODULE cannot be loaded\n"); return -1; }
	ulong_t (*get)(list_t **) = (ulong_t (*)(list_t **))dlsym(module, "C_GetFunctionList");
	if (get == NULL || get(&inner) != 0) return -1;
	outer.major = inner->major;
	outer.minor = inner->minor;
#define SET(n) outer.function[n] = (void *)wrap_##n;
	EACH(SET)
	outer.function[F_GET_FUNCTION_LIST] = (void *)get_list;
	return 0;
}

static ulong_t get_list(list_t **list) {
	pthread_mutex_lock(&lock);
	int failed = inner == NULL && load() != 0;
	pthread_mutex_unlock(&lock);
	if (failed) return CKR_GENERAL_ERROR;
	*list = &outer;
	return 0;
}

__attribute__((visibility("default"))) ulong_t C_GetFunctionList(list_t **list) { return get_list(list); }
