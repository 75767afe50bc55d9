export const page = { id: "jobs", title: "jobs", needs: ["GET /none"], show: async () => {} };
