/* A plugin for qemu-user that counts executed instructions, each virtual CPU's (that is, each thread's) on its own.
 *
 * The counters are in a file that the plugin maps, so that another process can read them while the program runs:
 * COUNTERS unsigned 64-bit numbers in the machine's byte order. INSN_COUNTS names the file.
 *
 * Whole translation blocks are counted when they are entered. A block that is left early counts in full; that is rare,
 * and the same in every run.
 *
 * Debian's qemu-user has no header for plugins, so what is used of it is declared here. These functions have not changed
 * since plugins exist, but QEMU wants to hear the version of the whole interface: API_VERSION, which the caller sets. */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))

struct qemu_plugin_tb;
typedef uint64_t plugin_id;

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned int, void *), int flags,
                                                 void *data);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);

PUBLIC int qemu_plugin_version = API_VERSION;

enum { COUNTERS = 1024, NO_REGISTERS_ARE_READ = 0 };

static uint64_t *counters;

/* A CPU's number is given to a new thread when its thread has ended; no two write to one counter at a time. */
static void block_entered(unsigned int cpu, void *instructions) {
    uint64_t *counter = &counters[cpu % COUNTERS];
    __atomic_store_n(counter, *counter + (uintptr_t)instructions, __ATOMIC_RELAXED);
}

static void block_translated(plugin_id id, struct qemu_plugin_tb *block) {
    (void)id;
    void *instructions = (void *)(uintptr_t)qemu_plugin_tb_n_insns(block);
    qemu_plugin_register_vcpu_tb_exec_cb(block, block_entered, NO_REGISTERS_ARE_READ, instructions);
}

PUBLIC int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
    (void)info, (void)argc, (void)argv;
    const char *path = getenv("INSN_COUNTS");
    if (!path) {
        fputs("insn_plugin: INSN_COUNTS must name the file of counters\n", stderr);
        return 1;
    }
    size_t size = COUNTERS * sizeof *counters;
    int file = open(path, O_RDWR | O_CREAT, 0644);
    if (file < 0 || ftruncate(file, (off_t)size) != 0) {
        perror(path);
        return 1;
    }
    counters = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (counters == MAP_FAILED) {
        perror(path);
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, block_translated);
    return 0;
}
